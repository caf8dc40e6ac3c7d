//go:build e2e

package controller

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestTheKeyIsNowhere makes the provisioner log everything that it can, for successful and
// failing operations.
func TestTheKeyIsNowhere(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := start(t, e, "-v=10", "--logging-format="+format)
			texts := provokeAll(t, e, p)
			for where, text := range texts {
				if text == "" {
					t.Errorf("%s is empty", where)
				}
				if found := revealed(text, e.Key.Reveal()); found != "" {
					t.Errorf("%s has the key: %s", where, found)
				}
			}
			// The log covers the request whose response has the key.
			if want := "/api/v1/namespaces/" + e.Namespace + "/secrets/" + framework.AdminSecret; !strings.Contains(texts["log"], want) {
				t.Errorf("the log has no request for %s", want)
			}
		})
	}
}

// provokeAll makes the provisioner use the key, and returns all its output.
func provokeAll(t *testing.T, e *framework.Env, p *process) map[string]string {
	t.Helper()
	claim := e.Claim(t, "good", e.Class(t, "good"))
	volume := e.AwaitBound(t, claim)
	volumeText := asText(t, volume)
	for name, class := range map[string]string{
		"unreachable": e.Class(t, "unreachable", framework.Parameter("monitors", "127.0.0.1:1")),
		"no-pool":     e.Class(t, "no-pool", framework.Parameter("pool", "no-such-pool")),
		"wrong-user":  e.Class(t, "wrong-user", framework.Parameter("adminId", "nobody")),
	} {
		e.AwaitEvent(t, e.Claim(t, name, class), framework.Timeout, "ProvisioningFailed")
	}
	// An invalid key that contains the valid one.
	for name, key := range map[string]string{"newline": e.Key.Reveal() + "\n", "twice": e.Key.Reveal() + e.Key.Reveal()} {
		e.PutSecret(t, name, key)
		class := e.Class(t, name, framework.Parameter("adminSecretName", name))
		e.AwaitEvent(t, e.Claim(t, name, class), framework.Timeout, "ProvisioningFailed", "not a cephx key")
	}
	e.DeleteClaim(t, claim.Name)
	e.AwaitVolumeGone(t, volume)

	_, metrics := p.Get(t, "/metrics")
	events, err := e.Client.CoreV1().Events(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := e.Claims(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"log": p.Log(), "metrics": metrics, "volume": volumeText, "events": asText(t, events), "claims": asText(t, claims),
	}
	for _, file := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), file))
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(data)
	}
	return texts
}

func asText(t *testing.T, object any) string {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// revealed searches for a key, as it is and in encoded forms, and returns the form that it
// found.
func revealed(text, key string) string {
	for form, patterns := range formsOf(key) {
		for _, pattern := range patterns {
			if strings.Contains(text, pattern) {
				return form
			}
		}
	}
	if bytes.Contains(hexDumped(text), []byte(key)) {
		return "as a hex dump"
	}
	return ""
}

// formsOf returns the forms in which a text may contain a key.
func formsOf(key string) map[string][]string {
	forms := map[string][]string{
		"as it is": {key},
		"as hex":   {hex.EncodeToString([]byte(key))},
	}
	// Inside a longer base64 text, the encoding depends on the key's offset. The letters at
	// both ends are shared with neighbouring bytes, so only the letters between them are
	// searched for.
	for before := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, before), key...))
		forms["as base64"] = append(forms["as base64"], encoded[(8*before+5)/6:8*(before+len(key))/6])
	}
	return forms
}

// dumpLine matches a line of encoding/hex's Dump, which client-go logs for binary data.
var dumpLine = regexp.MustCompile(`[0-9a-f]{8}  ((?:[0-9a-f]{2} {1,2}){1,16}) *\|`)

// hexDumped decodes all hex dumps in a text.
func hexDumped(text string) []byte {
	var all []byte
	for _, match := range dumpLine.FindAllStringSubmatch(text, -1) {
		line, err := hex.DecodeString(strings.ReplaceAll(match[1], " ", ""))
		if err == nil {
			all = append(all, line...)
		}
	}
	return all
}

// TestRevealedFinds tests the search itself.
func TestRevealedFinds(t *testing.T) {
	t.Parallel()
	const key = "AQB5wQJrHlxCKBAAdsw72tndnhsb0n5PnwcjNw=="
	body := []byte("k8s\x00\n\x0c\n\x02v1\x12\x06Secret" + key + "\x1a\x11kubernetes.io/rbd")
	for form, text := range map[string]string{
		"as it is":      "key=" + key + "!",
		"as base64":     `{"key":"` + base64.StdEncoding.EncodeToString([]byte(key)) + `"}`,
		"as hex":        hex.EncodeToString(body),
		"as a hex dump": "I1122 Response Body:\n" + hex.Dump(body) + "more",
		"":              hex.Dump(body[:40]) + key[:30],
	} {
		if got := revealed(text, key); got != form {
			t.Errorf("found %q, want %q", got, form)
		}
		if got, want := newSearch([]string{key}).find(text) != "", form != ""; got != want {
			t.Errorf("%s: the search for many keys finds it: %t, want %t", form, got, want)
		}
		if encoded := base64.StdEncoding.EncodeToString([]byte(text)); form == "as it is" && revealed(encoded, key) != "as base64" {
			t.Errorf("not found in %s", encoded)
		}
		if form == "as a hex dump" {
			// JSON escapes the line breaks.
			quoted, err := json.Marshal(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := revealed(string(quoted), key); got != form {
				t.Errorf("in JSON found %q, want %q", got, form)
			}
		}
	}
}
