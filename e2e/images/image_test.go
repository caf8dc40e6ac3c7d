package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		names, want []string
	}{
		{nil, []string{"provisioner", "pause", "nginx", "busybox"}},
		{[]string{"nginx", "base"}, []string{"nginx", "base"}},
	} {
		chosen, err := choose(test.names, DefaultRelease)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, image := range chosen {
			got = append(got, image.Name)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("choose(%q) (-want +got):\n%s", test.names, diff)
		}
	}
	if _, err := choose([]string{"ngnix"}, DefaultRelease); err == nil || !strings.Contains(err.Error(), "provisioner, pause, nginx, busybox, ceph, kubernetes, node, agnhost, e2e-busybox, e2e-nginx, dnsutils, base") {
		t.Errorf("got error %v, want one that lists the names", err)
	}
}

func TestArchivesAreToldByTheirNames(t *testing.T) {
	t.Parallel()
	image := Image{Name: "nginx"}
	if name := image.archiveName("0123456789ab"); !image.isArchive(name) {
		t.Errorf("%s is not recognised as an archive", name)
	}
	for _, name := range []string{"nginx.tar", "nginx-1.tar", "nginx-0123456789ab.tar.part", "my-nginx-0123456789ab.tar"} {
		if image.isArchive(name) {
			t.Errorf("%s is recognised as an archive", name)
		}
	}
}

// The tests below read the repository's own files: an image built here must equal one built
// elsewhere.

func TestEveryRecipeStartsFromTheBaseImageThatIsMade(t *testing.T) {
	t.Parallel()
	for _, image := range append(All(), Upstream()...) {
		text, err := os.ReadFile(filepath.Join("..", "..", image.Containerfile))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range []string{
			"\nARG BASE_IMAGE=" + base(DefaultRelease).Ref + "\n",
			"\nFROM ${BASE_IMAGE} AS build\n",
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no line %q", image.Containerfile, want)
			}
		}
	}
}

func TestTheProvisionerIsTheImageThatIsDeployed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "base", "deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), " image: "+Provisioner+"\n") {
		t.Errorf("the deployment does not use %s", Provisioner)
	}
}

func TestTheBuildContextLeavesTestsOut(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	// inputs excludes them too.
	for _, want := range []string{"\n**/*_test.go\n", "\n**/testdata\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf(".dockerignore has no line %q", want)
		}
	}
}
