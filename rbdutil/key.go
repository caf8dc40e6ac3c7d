package rbdutil

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
)

// redacted is all that a Key ever shows of itself.
const redacted = "***"

// Key is a cephx secret, as found under "key" in a keyring. It prints, logs and
// marshals as "***"; only Reveal gives the text, and only a Ceph client needs it.
type Key struct {
	// A struct with an unexported field, so that neither a conversion nor fmt's
	// reflection can get around the methods below.
	secret string
}

// NewKey wraps a cephx secret.
func NewKey(secret string) Key { return Key{secret: secret} }

// Reveal returns the secret itself. Hand it to the Ceph client and to nobody else.
func (k Key) Reveal() string { return k.secret }

// Check tells, without showing it, whether the secret is a cephx key. Ceph's own
// client must not be the one to find out: it prints a key that it cannot decode.
func (k Key) Check() error {
	if why := keyProblem(k.secret); why != "" {
		return fmt.Errorf("%w: %s", ErrInvalidKey, why)
	}
	return nil
}

// faultOf says what is wrong with the text of a key, or nothing. A key is, in
// base64, a type (2 bytes, little endian), a time stamp (8), a length (2) and so
// many bytes of secret.
func keyProblem(secret string) string {
	const (
		typeAES   = 1 // the only one that clients know
		header    = 12
		leastSize = 16
	)
	raw, err := base64.StdEncoding.Strict().DecodeString(secret)
	switch {
	case secret == "":
		return "it is empty"
	case strings.HasPrefix(strings.TrimSpace(secret), "["):
		return "it is a whole keyring"
	case strings.ContainsAny(secret, " \t\r\n"):
		// Go's decoder would pass over line breaks.
		return "there is white space or a line break in it or around it"
	case err != nil:
		return "it is not base64"
	case len(raw) > 0 && keyProblem(string(raw)) == "":
		return "it is in base64 twice"
	case len(raw) < header+leastSize || len(raw)-header != int(binary.LittleEndian.Uint16(raw[header-2:])):
		return "it is cut short or has something added"
	case binary.LittleEndian.Uint16(raw) != typeAES:
		return "it is of an unknown type"
	}
	return ""
}

// String implements fmt.Stringer without the secret.
func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer without the secret.
func (Key) GoString() string { return redacted }

// Format implements fmt.Formatter: every verb prints the same nothing.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler (JSON and YAML use it too).
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLog implements logr.Marshaler.
func (Key) MarshalLog() any { return redacted }

var _ logr.Marshaler = Key{}
