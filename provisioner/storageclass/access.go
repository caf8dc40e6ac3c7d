package storageclass

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// user returns the id of a cephx user.
func (r *reader) user(key, otherwise string) string {
	value := r.get(key)
	switch {
	case value == "":
		return otherwise
	case strings.HasPrefix(value, "client."):
		r.fail(key, value, `give the id without "client."`)
	case strings.HasPrefix(value, "-") || strings.ContainsFunc(value, notInNames):
		r.fail(key, value, "not a cephx user id: must not contain "+forbidden+`, and must not start with "-"`)
	}
	return value
}

// pool returns the name of a pool that the kubelet can handle.
func (r *reader) pool(key, otherwise string) string {
	value := r.get(key)
	switch {
	case value == "":
		return otherwise
	case strings.Index(value+"-image-", "-image-") < len(value):
		// On a node the volume is POOL-image-IMAGE, which the kubelet splits.
		r.fail(key, value, `the kubelet cannot unmount volumes of a pool with "-image-" in its name or "-image" at its end`)
	case len(value) > maxPoolName:
		r.fail(key, value, fmt.Sprintf("the kubelet cannot mount volumes of a pool with a name of more than %d bytes", maxPoolName))
	default:
		r.checkPool(key, value)
	}
	return value
}

// maxPoolName, in bytes, is what is left of a file name of 255 bytes: on a node the
// volume is POOL-image-IMAGE.
const maxPoolName = 255 - len("-image-"+"kubernetes-dynamic-pvc-00000000-0000-0000-0000-000000000000")

// dataPool returns the name of the data pool. The nodes do not use it.
func (r *reader) dataPool() string {
	value := r.get("dataPool")
	r.checkPool("dataPool", value)
	return value
}

func (r *reader) checkPool(key, value string) {
	if strings.HasPrefix(value, "-") || strings.HasPrefix(value, ".") || strings.ContainsFunc(value, notInNames) {
		r.fail(key, value, "not a pool for volumes: its name must not contain "+forbidden+`, and must not start with "-" or "."`)
	}
}

// forbidden describes notInNames.
const forbidden = "a slash, backslash, at sign, comma, colon, quote, white space or invisible character"

// notInNames reports whether a name of a pool or user must not have the character. It
// would change a path of the kubelet or an argument of the rbd command. An invisible
// character is a mistake.
func notInNames(c rune) bool {
	return c == ' ' || c == utf8.RuneError || !unicode.IsPrint(c) || strings.ContainsRune(`/@,:"'\`, c)
}

// keyringPath matches what the in-tree provisioner accepts.
var keyringPath = regexp.MustCompile("^(?:/[^/!;` ]+)+$")

func (r *reader) keyring() string {
	value := r.get("keyring")
	if value != "" && !keyringPath.MatchString(value) {
		r.fail("keyring", value, "must be the absolute path of a file on the nodes, without blanks")
	}
	return value
}

func (r *reader) monitors() []string {
	value := r.values["monitors"]
	monitors, err := parseMonitors(value)
	switch {
	case strings.TrimSpace(value) == "":
		r.errs = append(r.errs, field.Required(pathOf("monitors"), "the addresses of the Ceph monitors, separated by commas"))
	case err != nil:
		r.fail("monitors", value, err.Error())
	}
	return monitors
}
