package prepare

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// Hash hashes a list of texts and files. Each is preceded by its length, so two
// different lists have different hashes.
type Hash struct{ sum hash.Hash }

// NewHash returns the hash of an empty list.
func NewHash() Hash { return Hash{sha256.New()} }

// Text adds a text.
func (h Hash) Text(text string) {
	_, _ = fmt.Fprintf(h.sum, "%d:%s", len(text), text)
}

// File adds the content of a regular file, but not its name.
func (h Hash) File(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", path, errors.ErrUnsupported)
	}
	_, _ = fmt.Fprintf(h.sum, "%d:", info.Size())
	_, err = io.Copy(h.sum, file)
	return err
}

// Key returns the first hexadecimal digits of the hash.
func (h Hash) Key(digits int) string {
	return hex.EncodeToString(h.sum.Sum(nil))[:digits]
}
