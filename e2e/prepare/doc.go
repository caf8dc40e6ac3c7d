// Package prepare has what the packages lab and images share. Both run steps
// that take minutes, such as building Kubernetes or a container image. They report
// their progress, let one process at a time do the work, install Debian packages
// and name the result after a hash of its inputs.
package prepare
