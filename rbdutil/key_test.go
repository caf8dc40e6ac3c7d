package rbdutil

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// A key as `ceph-authtool --gen-print-key` prints it, in use nowhere.
const exampleKey = "AQAZ3WpnAAAAABAAyyBqS9+2rC4JdGtDVIlpUQ=="

func TestKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	key := NewKey(exampleKey)
	cluster := Cluster{Monitors: []string{"mon"}, User: "kube", Key: key}
	marshalled, err := json.Marshal(map[string]any{"key": key, "cluster": cluster, "pointer": &cluster})
	if err != nil {
		t.Fatal(err)
	}
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(10)))
	logger.Info("key", "key", key, "cluster", cluster, "pointer", &cluster)
	logged := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	for how, text := range map[string]string{
		"%v":      fmt.Sprintf("%v %v %v", key, cluster, &cluster),
		"%+v":     fmt.Sprintf("%+v %+v %+v", key, cluster, &cluster),
		"%#v":     fmt.Sprintf("%#v %#v %#v", key, cluster, &cluster),
		"%s":      fmt.Sprintf("%s %q %x %d", key, key, key, key),
		"String":  cluster.String() + key.String(),
		"error":   fmt.Errorf("with %v: %w", key, ErrInvalidKey).Error(),
		"JSON":    string(marshalled),
		"logr":    fmt.Sprint(key.MarshalLog(), key.GoString()),
		"logging": logged + fmt.Sprint(klog.Format(cluster)),
	} {
		if strings.Contains(text, exampleKey) || strings.Contains(text, fmt.Sprintf("%x", exampleKey)) {
			t.Errorf("%s shows the key: %s", how, text)
		}
	}
	if key.Reveal() != exampleKey {
		t.Errorf("Reveal() = %q", key.Reveal())
	}
}

func TestKeyCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		secret string
		valid  bool
	}{
		"a key":                      {exampleKey, true},
		"empty":                      {"", false},
		"not base64":                 {"not-base64!", false},
		"truncated":                  {exampleKey[:20], false},
		"without padding":            {strings.TrimRight(exampleKey, "="), false},
		"twice":                      {exampleKey + exampleKey, false},
		"with a newline at the end":  {exampleKey + "\n", false},
		"with a newline in it":       {exampleKey[:10] + "\n" + exampleKey[10:], false},
		"of an unknown type":         {"CQAAAAAAAAAAABAABwcHBwcHBwcHBwcHBwcHBw==", false},
		"of no type":                 {"AAAAAAAAAAAAABAABwcHBwcHBwcHBwcHBwcHBw==", false},
		"too short for its type":     {"AQAAAAAAAAAAAA8ABwcHBwcHBwcHBwcHBwcH", false},
		"longer than its type needs": {"AQAAAAAAAAAAACAABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", true},
		"a keyring instead of a key": {"[client.kube]\nkey = " + exampleKey, false},
		"base64 of base64":           {"QVFBWjNXcG5BQUFBQUJBQXl5QnFTOSsyckM0SmRHdERWSWxwVVE9PQ==", false},
		"a header without a secret":  {"AQAZ3WpnAAAAAAAA", false},
	} {
		err := NewKey(test.secret).Check()
		if valid := err == nil; valid != test.valid {
			t.Errorf("%s: Check() = %v", name, err)
		}
		if err != nil && !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%s: %v is not %v", name, err, ErrInvalidKey)
		}
		if err != nil && test.secret != "" && strings.Contains(err.Error(), test.secret) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func FuzzKeyCheck(f *testing.F) {
	for _, secret := range []string{
		"", exampleKey, exampleKey + "\n", exampleKey[:20], "[client.kube]\nkey = " + exampleKey, "\xff", "====",
		"QVFBWjNXcG5BQUFBQUJBQXl5QnFTOSsyckM0SmRHdERWSWxwVVE9PQ==", "AQAZ3WpnAAAAAAAA", "CQAAAAAAAAAAABAABwcHBwcHBwcHBwcHBwcHBw==",
	} {
		f.Add(secret)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		err := NewKey(secret).Check()
		if err == nil {
			// What Ceph's client requires of a key; otherwise it prints the key.
			raw, err := base64.StdEncoding.DecodeString(secret)
			if err != nil || len(raw) < 28 || raw[0] != 1 || raw[1] != 0 || int(raw[10])|int(raw[11])<<8 != len(raw)-12 {
				t.Errorf("%q is accepted as a key", secret)
			}
			if strings.ContainsFunc(secret, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Errorf("%q is accepted as a key", secret)
			}
			return
		}
		// The text does not depend on the secret, so it cannot contain it.
		if problem := strings.TrimPrefix(err.Error(), ErrInvalidKey.Error()+": "); !slices.Contains(keyProblems, problem) {
			t.Errorf("%q: %v", secret, err)
		}
	})
}

// keyProblems are all texts of Check.
var keyProblems = []string{
	"it is empty", "it is a keyring file", "it contains white space or a line break", "it is not base64",
	"it is base64-encoded twice", "it has a wrong length", "it has an unknown type",
}
