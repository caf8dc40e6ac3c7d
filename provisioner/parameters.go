package provisioner

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// parameters is a StorageClass's parameters, complete and checked.
type parameters struct {
	monitors    []string
	adminID     string
	adminSecret types.NamespacedName
	userID      string
	// userSecret has an empty name where the nodes have a keyring file, and an
	// empty namespace where each claim's own is meant.
	userSecret types.NamespacedName
	keyring    string
	pool       string
	layout     rbdutil.Layout
	fsType     string
	// trashRetention is how long a deleted image is kept in the trash.
	trashRetention time.Duration
}

// The defaults of the parameters that may be left out, both predecessors' own.
const (
	defaultAdminID              = "admin"
	defaultAdminSecretNamespace = "default"
	defaultPool                 = "rbd"
	imageFormat                 = "2"
)

// parameterKeys are all keys that a class may have, as the documentation spells them.
var parameterKeys = []string{
	"monitors", "adminId", "adminSecretName", "adminSecretNamespace",
	"userId", "userSecretName", "userSecretNamespace", "keyring",
	"pool", "dataPool", "imageFormat", "imageFeatures", "objectSize", "fsType", "trashRetention",
}

// fsTypes are the file systems that the kubelet can make and grow on an image.
var fsTypes = []string{"ext4", "xfs", "ext3", "btrfs"}

// parseParameters reads a class's parameters and reports all mistakes at once.
func parseParameters(raw map[string]string) (parameters, field.ErrorList) {
	r := newParameterReader(raw)
	p := parameters{
		monitors: r.monitors(),
		adminID:  r.user("adminId", defaultAdminID),
		adminSecret: types.NamespacedName{
			Name:      r.name("adminSecretName", validation.IsDNS1123Subdomain),
			Namespace: r.or("adminSecretNamespace", defaultAdminSecretNamespace, validation.IsDNS1123Label),
		},
		userSecret: types.NamespacedName{
			Name:      r.name("userSecretName", validation.IsDNS1123Subdomain),
			Namespace: r.name("userSecretNamespace", validation.IsDNS1123Label),
		},
		keyring: r.keyring(),
		pool:    r.pool("pool", defaultPool),
		layout: rbdutil.Layout{
			Features:   r.features(),
			ObjectSize: r.objectSize(),
			DataPool:   r.dataPool(),
		},
		fsType:         r.oneOf("fsType", fsTypes),
		trashRetention: r.retention(),
	}
	p.userID = r.user("userId", p.adminID)
	r.require("adminSecretName", "the Secret with the key of client."+p.adminID)
	if r.values["keyring"] == "" {
		r.require("userSecretName", "the Secret with the key of client."+p.userID+
			" that nodes map the image with (or keyring, a file on every node)")
	}
	r.oneOf("imageFormat", []string{imageFormat})
	if p.layout.DataPool == p.pool {
		p.layout.DataPool = "" // which is what Ceph makes of it
	}
	return p, r.errs
}

// parameterReader takes values out of a class's parameters and collects what is
// wrong with them.
type parameterReader struct {
	values map[string]string // by the documentation's spelling of the key
	errs   field.ErrorList
}

func path(key string) *field.Path { return field.NewPath("parameters").Child(key) }

// newParameterReader sorts the parameters by key, in whatever case they are given.
func newParameterReader(raw map[string]string) *parameterReader {
	r := &parameterReader{values: map[string]string{}}
	seen := map[string]string{}
	unknown := "unknown parameter, allowed: " + strings.Join(parameterKeys, ", ")
	for _, given := range slices.Sorted(maps.Keys(raw)) {
		i := slices.IndexFunc(parameterKeys, func(k string) bool { return strings.EqualFold(k, given) })
		if i < 0 {
			r.fail(cut(given), raw[given], unknown)
			unknown = "unknown parameter" // once is enough
			continue
		}
		key := parameterKeys[i]
		if other, twice := seen[key]; twice {
			r.fail(given, raw[given], "given twice, as "+other+" too: keep one of them")
			continue
		}
		seen[key] = given
		r.values[key] = raw[given]
	}
	return r
}

func (r *parameterReader) fail(key, value, why string) {
	r.errs = append(r.errs, field.Invalid(path(key), cut(value), why))
}

// cut shortens what somebody else has written: an event is no place for all of it.
func cut(text string) string {
	const most = 100
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// require wants a value, be it a wrong one, of which something else is said.
func (r *parameterReader) require(key, why string) {
	if r.values[key] == "" {
		r.errs = append(r.errs, field.Required(path(key), why))
	}
}

// get returns a value without checking more than its edges.
func (r *parameterReader) get(key string) string {
	value := r.values[key]
	if strings.TrimSpace(value) != value {
		r.fail(key, value, "there is white space around it: remove it")
		return ""
	}
	return value
}

// name returns a value that check takes for the name of a Kubernetes object.
func (r *parameterReader) name(key string, check func(string) []string) string {
	value := r.get(key)
	if value == "" {
		return ""
	}
	if errs := check(value); len(errs) > 0 {
		r.fail(key, value, strings.Join(errs, "; "))
	}
	return value
}

func (r *parameterReader) or(key, otherwise string, check func(string) []string) string {
	if value := r.name(key, check); value != "" {
		return value
	}
	return otherwise
}

func (r *parameterReader) oneOf(key string, allowed []string) string {
	value := r.get(key)
	if value != "" && !slices.Contains(allowed, value) {
		r.errs = append(r.errs, field.NotSupported(path(key), cut(value), allowed))
	}
	return value
}

// user returns a cephx user's id.
func (r *parameterReader) user(key, otherwise string) string {
	value := r.get(key)
	switch {
	case value == "":
		return otherwise
	case strings.HasPrefix(value, "client."):
		r.fail(key, value, `give the id without "client."`)
	case strings.HasPrefix(value, "-") || strings.ContainsFunc(value, notInNames):
		r.fail(key, value, "not a cephx user id: there must be "+nowhere+` in it, and no "-" at its start`)
	}
	return value
}

// pool returns a pool's name, if the kubelet can handle it.
func (r *parameterReader) pool(key, otherwise string) string {
	value := r.get(key)
	switch {
	case value == "":
		return otherwise
	case strings.Index(value+"-image-", "-image-") < len(value):
		// On a node the volume is POOL-image-IMAGE, which the kubelet takes apart.
		r.fail(key, value, `the kubelet cannot unmount volumes of a pool with "-image-" in its name or "-image" at its end`)
	case len(value) > maxPoolName:
		r.fail(key, value, fmt.Sprintf("the kubelet cannot mount volumes of a pool with a name of more than %d bytes", maxPoolName))
	default:
		r.checkPool(key, value)
	}
	return value
}

// maxPoolName, in bytes, leaves place for the rest in a file name of 255: on a node
// the volume is POOL-image-IMAGE.
const maxPoolName = 255 - len("-image-"+"kubernetes-dynamic-pvc-00000000-0000-0000-0000-000000000000")

// dataPool returns the name of a pool that the nodes never hear of.
func (r *parameterReader) dataPool() string {
	value := r.get("dataPool")
	r.checkPool("dataPool", value)
	return value
}

func (r *parameterReader) checkPool(key, value string) {
	if strings.HasPrefix(value, "-") || strings.HasPrefix(value, ".") || strings.ContainsFunc(value, notInNames) {
		r.fail(key, value, "not a pool for volumes: there must be "+nowhere+` in its name, and no "-" or "." at its start`)
	}
}

// nowhere says what notInNames tells.
const nowhere = "no slash, backslash, at sign, comma, colon, quote, white space or invisible character"

// notInNames tells which characters would make the name of a pool or user mean
// something else in a path of the kubelet's or an argument of the rbd command, or
// are there by mistake, as nobody can see them.
func notInNames(c rune) bool {
	return c == ' ' || c == utf8.RuneError || !unicode.IsPrint(c) || strings.ContainsRune(`/@,:"'\`, c)
}

// keyringPath is what the in-tree provisioner takes.
var keyringPath = regexp.MustCompile("^(?:/[^/!;` ]+)+$")

func (r *parameterReader) keyring() string {
	value := r.get("keyring")
	if value != "" && !keyringPath.MatchString(value) {
		r.fail("keyring", value, "not an absolute path of a file on the nodes, without blanks")
	}
	return value
}

func (r *parameterReader) features() rbdutil.Features {
	value := r.values["imageFeatures"]
	if strings.TrimSpace(value) == "" {
		return rbdutil.Layering
	}
	features, err := rbdutil.ParseFeatures(value)
	if err != nil {
		r.fail("imageFeatures", value, fmt.Sprintf("%s, allowed: %s", cut(err.Error()), strings.Join(rbdutil.Supported(), ", ")))
	}
	return features
}

// shortQuantity keeps exponents away from ParseQuantity, which would work out ten to
// the power of whatever it is given.
var shortQuantity = regexp.MustCompile(`^-?[0-9.]{1,12}[A-Za-z]{0,2}$`)

func (r *parameterReader) objectSize() uint64 {
	value := r.get("objectSize")
	if value == "" {
		return 0
	}
	if !shortQuantity.MatchString(value) {
		r.fail("objectSize", value, "not a quantity such as 4Mi")
		return 0
	}
	quantity, err := resource.ParseQuantity(value)
	if err != nil {
		r.fail("objectSize", value, "not a quantity such as 4Mi")
		return 0
	}
	size := uint64(max(bytesOf(quantity), 0))
	if err := rbdutil.CheckObjectSize(size); err != nil {
		r.fail("objectSize", value, err.Error())
	}
	return size
}

func (r *parameterReader) retention() time.Duration {
	value := r.get("trashRetention")
	if value == "" {
		return 0
	}
	keep, err := parseRetention(value)
	if err != nil {
		r.fail("trashRetention", value, err.Error())
	}
	return keep
}

// maxRetention keeps a mistake of units from keeping images for ever.
const maxRetention = 10 * 365 * 24 * time.Hour

// parseRetention reads how long a deleted image is kept in the trash, in whole seconds as
// Ceph counts.
func parseRetention(text string) (time.Duration, error) {
	keep, err := time.ParseDuration(text)
	if err != nil || keep < 0 || keep > maxRetention || keep%time.Second != 0 {
		return 0, fmt.Errorf("not a duration such as 24h, allowed: 0 to %dh in whole seconds", int(maxRetention.Hours()))
	}
	return keep, nil
}

func (r *parameterReader) monitors() []string {
	value := r.values["monitors"]
	monitors, err := parseMonitors(value)
	switch {
	case strings.TrimSpace(value) == "":
		r.errs = append(r.errs, field.Required(path("monitors"), "the addresses of the Ceph monitors, separated by commas"))
	case err != nil:
		r.fail("monitors", value, err.Error())
	}
	return monitors
}
