package storageclass

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reader reads the values of parameters and collects the mistakes.
type reader struct {
	values map[string]string // by key, in the spelling of the documentation
	errs   field.ErrorList
}

func pathOf(key string) *field.Path { return field.NewPath("parameters").Child(key) }

// newReader finds the key of each parameter, in any case, or under a synonym.
func newReader(raw map[string]string) *reader {
	r := &reader{values: map[string]string{}}
	seen := map[string]string{}
	unknown := "unknown parameter, allowed: " + strings.Join(keys, ", ")
	for _, given := range slices.Sorted(maps.Keys(raw)) {
		key, known := keyOf(given)
		if !known {
			r.fail(Truncate(given), raw[given], unknown)
			unknown = "unknown parameter" // list the allowed keys only once
			continue
		}
		if other, twice := seen[key]; twice {
			r.fail(given, raw[given], "given twice, also as "+other+": keep one of them")
			continue
		}
		seen[key] = given
		r.values[key] = raw[given]
	}
	return r
}

// keyOf returns the key that a class spells in this way.
func keyOf(given string) (key string, known bool) {
	if key, known = synonyms[strings.ToLower(given)]; known {
		return key, true
	}
	i := slices.IndexFunc(keys, func(k string) bool { return strings.EqualFold(k, given) })
	if i < 0 {
		return "", false
	}
	return keys[i], true
}

func (r *reader) fail(key, value, why string) {
	r.errs = append(r.errs, field.Invalid(pathOf(key), Truncate(value), why))
}

// require adds an error if the value is empty. An invalid value has its own error.
func (r *reader) require(key, why string) {
	if r.values[key] == "" {
		r.errs = append(r.errs, field.Required(pathOf(key), why))
	}
}

// get returns a value without white space around it.
func (r *reader) get(key string) string {
	value := r.values[key]
	if strings.TrimSpace(value) != value {
		r.fail(key, value, "must not have white space around it")
		return ""
	}
	return value
}

// name returns the name of a Kubernetes object. The check returns what is wrong with it.
func (r *reader) name(key string, check func(string) []string) string {
	value := r.get(key)
	if value == "" {
		return ""
	}
	if errs := check(value); len(errs) > 0 {
		r.fail(key, value, strings.Join(errs, "; "))
	}
	return value
}

func (r *reader) nameOr(key, otherwise string, check func(string) []string) string {
	if value := r.name(key, check); value != "" {
		return value
	}
	return otherwise
}

func (r *reader) oneOf(key string, allowed []string) string {
	value := r.get(key)
	if value != "" && !slices.Contains(allowed, value) {
		r.errs = append(r.errs, field.NotSupported(pathOf(key), Truncate(value), allowed))
	}
	return value
}
