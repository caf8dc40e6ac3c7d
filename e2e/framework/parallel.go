package framework

import (
	"flag"
	"fmt"
	"os"
)

// Parallel sets the number of tests that run at the same time, unless -parallel is given. It is
// for use in TestMain. Go's default is the number of processors, which is too low for tests
// that mostly wait.
func Parallel(n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return
	}
	if err := flag.Set("test.parallel", fmt.Sprint(n)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
