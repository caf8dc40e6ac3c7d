package rbdutil

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
)

// redacted replaces the secret in all output.
const redacted = "***"

// Key is a cephx secret, as in the entry "key" of a keyring. It is printed, logged and
// marshalled as "***". Only Reveal returns the secret, and only a Ceph client needs it.
type Key struct {
	// The field is unexported, so neither a conversion nor fmt's reflection can bypass the
	// methods below.
	secret string
}

// NewKey wraps a cephx secret.
func NewKey(secret string) Key { return Key{secret: secret} }

// Reveal returns the secret. Pass it to the Ceph client only.
func (k Key) Reveal() string { return k.secret }

// Check returns an error, without the secret, if the secret is not a cephx key. Ceph's
// client must not do this check: it prints a key that it cannot decode.
func (k Key) Check() error {
	if problem := keyProblem(k.secret); problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalidKey, problem)
	}
	return nil
}

// keyProblem returns what is wrong with the text of a key, or "". A key is base64 of a
// type (2 bytes, little endian), a time stamp (8), a length (2) and a secret of that length.
func keyProblem(secret string) string {
	const (
		typeAES   = 1 // the only one that clients support
		header    = 12
		leastSize = 16
	)
	raw, err := base64.StdEncoding.Strict().DecodeString(secret)
	switch {
	case secret == "":
		return "it is empty"
	case strings.HasPrefix(strings.TrimSpace(secret), "["):
		return "it is a keyring file"
	case strings.ContainsAny(secret, " \t\r\n"):
		// Go's decoder ignores line breaks.
		return "it contains white space or a line break"
	case err != nil:
		return "it is not base64"
	case len(raw) > 0 && keyProblem(string(raw)) == "":
		return "it is base64-encoded twice"
	case len(raw) < header+leastSize || len(raw)-header != int(binary.LittleEndian.Uint16(raw[header-2:])):
		return "it has a wrong length"
	case binary.LittleEndian.Uint16(raw) != typeAES:
		return "it has an unknown type"
	}
	return ""
}

// String implements fmt.Stringer without the secret.
func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer without the secret.
func (Key) GoString() string { return redacted }

// Format implements fmt.Formatter: every verb prints "***".
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler (JSON and YAML use it too).
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLog implements logr.Marshaler.
func (Key) MarshalLog() any { return redacted }

var _ logr.Marshaler = Key{}
