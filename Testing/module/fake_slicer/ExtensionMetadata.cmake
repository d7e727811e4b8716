# The metadata that Slicer writes into an extension's description, for the test to read.
set(lines "NAME=${EXTENSION_NAME}\n")
foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS CATEGORY)
  string(APPEND lines "${name}=${EXTENSION_${name}}\n")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/description.txt" "${lines}")
