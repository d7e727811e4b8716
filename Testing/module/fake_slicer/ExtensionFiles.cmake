# Packaging stops where the license or the readme is missing; Slicer's own stand in where none is named.
foreach(name LICENSE README)
  if(NOT EXISTS "${EXTENSION_${name}_FILE}")
    message(FATAL_ERROR "EXTENSION_${name}_FILE names no file: '${EXTENSION_${name}_FILE}'")
  endif()
endforeach()
