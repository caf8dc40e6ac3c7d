package app

// version is this program's own, set by the linker (-X). Not Kubernetes' component
// version, which takes nothing but v1.2.3 and panics at the output of git describe.
var version = "unknown"
