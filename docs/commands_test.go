package docs

import (
	"regexp"
	"strings"
	"testing"
)

// A runner is a file that runs a command of the README, and the line in it that does so.
type runner struct{ file, line string }

// The demo takes the commands of the section Install from README.md itself.
var demo = runner{"../e2e/demo/demo.sh", "readme_commands >commands"}

// readmeCommands says by what each command of the README is run. A push is not run, because it
// takes a registry; the workflow runs the rest of that line.
var readmeCommands = map[string]runner{
	"make demo": {"../.ci/run", "step demo"},
	"make test": {"../.ci/run", "step test"},

	"ceph osd pool create kube && rbd pool init kube": demo,

	"for user in kube-admin kube; do ceph auth get-or-create client.$user mon 'profile rbd' osd 'profile rbd pool=kube'; done": demo,

	"make image && docker push docker.io/rbd-provisioner/rbd-provisioner:VERSION": {"../.github/workflows/verify.yaml", "run: make image"},

	"kubectl apply -k deploy":         demo,
	"kubectl apply -k deploy/example": demo,
}

func TestEveryCommandOfTheReadmeIsRun(t *testing.T) {
	t.Parallel()
	commands := fencedCommands(read(t, "../README.md"))
	for _, command := range commands {
		run, ok := readmeCommands[command]
		switch {
		case !ok:
			t.Errorf("no test runs this command of README.md: %s", command)
		case !strings.Contains(read(t, run.file), run.line):
			t.Errorf("%s does not contain %q, which runs %s", run.file, run.line, command)
		}
	}
	if len(commands) != len(readmeCommands) {
		t.Errorf("README.md has %d commands, the table %d", len(commands), len(readmeCommands))
	}
}

// fencedCommands returns the lines of all fenced blocks, without comments.
func fencedCommands(text string) []string {
	var commands []string
	for _, block := range fence.FindAllString(text, -1) {
		lines := strings.Split(block, "\n")
		for _, line := range lines[1 : len(lines)-1] {
			if command := regexp.MustCompile(` +#.*`).ReplaceAllString(line, ""); command != "" {
				commands = append(commands, command)
			}
		}
	}
	return commands
}
