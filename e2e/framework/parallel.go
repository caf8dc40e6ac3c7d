package framework

import (
	"flag"
	"fmt"
	"os"
)

// Parallel is for a TestMain: it lets so many tests run at a time, unless -parallel
// says otherwise. Go's default is the number of processors, but these tests wait
// more than they work.
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
