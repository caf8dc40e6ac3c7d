// Command images builds the container images of the lab. See package
// e2e/images.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/images"
)

const usage = `usage:
  images build [flags]   build outdated images and print the paths of the archives, one per line
  images list            print the short and full names of the images

flags of build:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts := images.Options{Log: stderr}
	only := ""
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&opts.OutDir, "out", "", "`directory` of the archives (default: in the cache)")
	flags.StringVar(&opts.CacheDir, "cache", "", "`directory` of the caches "+
		"(default ${XDG_CACHE_HOME:-~/.cache}/rbd-provisioner-lab/images)")
	flags.StringVar(&opts.Source, "source", ".", "`directory` with the Dockerfile")
	flags.StringVar(&opts.Release, "release", images.DefaultRelease, "Debian `release` of the images")
	flags.StringVar(&only, "only", "", "comma-separated short `names` of the images to build (default: those of a lab, without base and those of e2e/upstream)")
	if len(args) == 0 {
		flags.Usage()
		return errors.New("no command given")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if only != "" {
		opts.Only = strings.Split(only, ",")
	}
	switch args[0] {
	case "build":
		return build(ctx, opts, stdout)
	case "list":
		return list(stdout)
	case "help", "-h", "-help", "--help":
		flags.Usage()
		return nil
	}
	flags.Usage()
	return fmt.Errorf("unknown command %q", args[0])
}

func build(ctx context.Context, opts images.Options, stdout io.Writer) error {
	archives, err := images.Build(ctx, opts)
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := fmt.Fprintln(stdout, archive.Path); err != nil {
			return err
		}
	}
	return nil
}

func list(stdout io.Writer) error {
	for _, image := range append(images.All(), images.Upstream()...) {
		if _, err := fmt.Fprintf(stdout, "%s\t%s\n", image.Name, image.Ref); err != nil {
			return err
		}
	}
	return nil
}
