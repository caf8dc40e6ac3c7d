package leadership

import (
	"errors"
	"testing"
)

func TestAnExitHappensOnce(t *testing.T) {
	t.Parallel()
	var codes []int
	e := NewExiter(func(code int) { codes = append(codes, code) })
	e.Exit(errors.New("one reason"))
	e.Exit(errors.New("another"))
	if len(codes) != 1 || codes[0] != 1 {
		t.Errorf("exit codes %v, want one exit with code 1", codes)
	}
}
