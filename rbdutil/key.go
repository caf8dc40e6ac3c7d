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

// Check tells, without showing it, whether the secret has the form of a cephx key:
// in base64 a type and a time stamp (10 bytes), a length (2 bytes, little endian)
// and so many bytes of secret. Ceph's own client must not be the one to find out: it
// prints a key that it cannot decode.
func (k Key) Check() error {
	const header = 12
	raw, err := base64.StdEncoding.Strict().DecodeString(k.secret)
	switch {
	case strings.ContainsAny(k.secret, " \t\r\n"):
		// Go's decoder would pass over line breaks.
		return fmt.Errorf("%w: there is white space or a line break in it or around it", ErrInvalidKey)
	case err != nil:
		return fmt.Errorf("%w: it is not base64", ErrInvalidKey)
	case len(raw) <= header || len(raw)-header != int(binary.LittleEndian.Uint16(raw[header-2:])):
		return fmt.Errorf("%w: it is cut short or has something added", ErrInvalidKey)
	}
	return nil
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
