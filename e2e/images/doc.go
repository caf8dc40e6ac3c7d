// Package images builds the images that a cluster of the lab runs: the provisioner from the
// project's own Dockerfile, and substitutes for the few public images that its pods use. It
// needs a Debian machine with access to Debian packages and Go modules, but no container
// registry. Each image becomes a docker-archive for `ctr images import` and `docker load`.
//
// The base image of the Dockerfiles is created by debootstrap, under the name that they use. So
// the same Dockerfiles build unchanged where there is a registry. Buildah builds all images,
// without a daemon and with a storage of its own. The user's images are not changed.
//
// An archive is named after a hash of its inputs. An existing archive is up to date and is
// returned without running any command.
package images
