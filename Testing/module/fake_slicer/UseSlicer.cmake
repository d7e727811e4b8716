# Slicer's macros for scripted modules: they copy into the build tree, install, and add the tests by the same names.
set(EXTENSION_NAME "${PROJECT_NAME}")
include(CTest)

function(_fake_copy destination)
  foreach(file ${ARGN})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "listed and not there: ${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    endif()
    configure_file("${CMAKE_CURRENT_SOURCE_DIR}/${file}" "${destination}/${file}" COPYONLY)
  endforeach()
endfunction()

# Arguments go through cmake_parse_arguments, as in Slicer, so that a misspelled keyword is an error here too.
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(PARSE_ARGV 0 MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES")
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(name TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT MY_${name})
      message(FATAL_ERROR "${name} is mandatory")
    endif()
  endforeach()
  _fake_copy("${MY_DESTINATION_DIR}" ${MY_SCRIPTS} ${MY_RESOURCES})
  if(MY_NO_INSTALL_SUBDIR)
    set(MY_DESTINATION_DIR "${MY_DESTINATION_DIR}/")
  endif()
  install(DIRECTORY "${MY_DESTINATION_DIR}" DESTINATION "${MY_INSTALL_DIR}")
endfunction()

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(PARSE_ARGV 0 MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES")
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME)
    message(FATAL_ERROR "NAME is mandatory; unknown arguments: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_NAME}
    SCRIPTS ${MY_SCRIPTS}
    RESOURCES ${MY_RESOURCES}
    DESTINATION_DIR "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}"
    INSTALL_DIR "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    NO_INSTALL_SUBDIR
    )
  if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
    _fake_test("py_nomainwindow_qSlicer${MY_NAME}ModuleGenericTest" "${MY_NAME}.py")
  endif()
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(PARSE_ARGV 0 MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS")
  get_filename_component(name "${MY_SCRIPT}" NAME_WE)
  _fake_test("py_${MY_TESTNAME_PREFIX}${name}" "${MY_SCRIPT}")
endfunction()

function(slicer_add_python_test)
  cmake_parse_arguments(PARSE_ARGV 0 MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS;SCRIPT_ARGS")
  get_filename_component(name "${MY_SCRIPT}" NAME_WE)
  _fake_test("py_${MY_TESTNAME_PREFIX}${name}" "${MY_SCRIPT}")
endfunction()

function(_fake_test name script)
  get_filename_component(script "${script}" ABSOLUTE)
  if(NOT EXISTS "${script}")
    message(FATAL_ERROR "the script of the test ${name} is not there: ${script}")
  endif()
  add_test(NAME "${name}" COMMAND "${CMAKE_COMMAND}" -E true)
endfunction()
