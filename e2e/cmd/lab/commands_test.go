package main

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestParse(t *testing.T) {
	t.Parallel()
	call, err := parse("run", []string{"x", "--images", "a.tar,b.tar", "--nodes=1", "--keep", "--", "go", "test", "--nodes=7", "--", "./..."})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x"}, call.args); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"go", "test", "--nodes=7", "--", "./..."}, call.program); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a.tar", "b.tar"}, call.up.Images); diff != "" {
		t.Error(diff)
	}
	if call.up.Nodes != 1 || !call.keep {
		t.Errorf("got %+v", call)
	}
}

func TestCephOnlyHasNoNodesUnlessToldSo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"x"}, 2},
		{[]string{"x", "--ceph-only"}, 0},
		{[]string{"x", "--ceph-only", "--nodes=2"}, 2}, // an error that Up reports
	} {
		call, err := parse("up", test.args)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := call.newLab(); err != nil {
			t.Fatal(err)
		}
		if call.up.Nodes != test.want {
			t.Errorf("%q: %d nodes, want %d", test.args, call.up.Nodes, test.want)
		}
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"destroy"},
		{"up"},
		{"up", "x", "--node=2"},
		{"up", "x", "--", "program"},
		{"exec", "x"},
		{"exec", "x", "--"},
		{"run", "x", "program"},
		{"down"},
		{"down", "x", "--all"},
		{"fault", "x", "pause"},
	} {
		if err := command(context.Background(), args); !errors.As(err, new(usageError)) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
	if err := command(context.Background(), []string{"up", "--help"}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestVersionsOfCeph(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"up", "run", "prepare"} {
		call, err := parse(name, []string{"x", "--ceph", "18"})
		if err != nil || call.up.CephVersion != 18 {
			t.Errorf("%s: %+v, %v", name, call, err)
		}
	}
	for version, args := range map[int][]string{16: {"x", "--", "rbd"}, 18: {"x", "--librbd=18", "--", "rbd"}} {
		if call, err := parse("exec", args); err != nil || call.librbd != version {
			t.Errorf("%q: %+v, %v, want version %d", args, call, err, version)
		}
	}
}
