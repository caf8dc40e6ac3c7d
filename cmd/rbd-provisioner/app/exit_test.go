package app

import (
	"errors"
	"testing"
)

func TestAnExitHappensOnce(t *testing.T) {
	t.Parallel()
	var codes []int
	e := &exiter{exit: func(code int) { codes = append(codes, code) }}
	e.now(errors.New("one reason"))
	e.now(errors.New("another"))
	if len(codes) != 1 || codes[0] != 1 {
		t.Errorf("exits with %v, want one with code 1", codes)
	}
}
