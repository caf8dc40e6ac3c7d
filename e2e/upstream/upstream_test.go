package upstream

import (
	_ "embed" // for the list of skipped specs
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"k8s.io/component-base/logs"
	"k8s.io/kubernetes/test/e2e/framework"
	e2econfig "k8s.io/kubernetes/test/e2e/framework/config"

	// The suite: its flag -storage.testdriver defines the specs.
	_ "k8s.io/kubernetes/test/e2e/storage/external"
	// After each spec: show the objects of a failed one, and check that the nodes are ready.
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/upstream/skiplist"
)

//go:embed skips.yaml
var skipsFile []byte

// results is the directory of the flag -results.
var results = flag.String("results", ".", "`directory` of progress.log and report.txt")

func TestMain(m *testing.M) {
	e2econfig.CopyFlags(e2econfig.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	logs.InitLogs()
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

func TestUpstream(t *testing.T) {
	list, err := skiplist.Parse(skipsFile)
	if err != nil {
		t.Fatal(err)
	}
	// A spec of the list ends before it creates anything.
	ginkgo.BeforeEach(func() {
		if entry := list.Excluded(ginkgo.CurrentSpecReport().FullText()); entry != nil {
			ginkgo.Skip(entry.Reason)
		}
	})
	ginkgo.ReportAfterEach(func(spec ginkgo.SpecReport) {
		framework.ExpectNoError(writeProgress(spec))
	})
	ginkgo.ReportAfterSuite("skipped specs", func(report ginkgo.Report) {
		text, err := list.Report(report.SpecReports, report.SuiteConfig.FocusStrings)
		framework.ExpectNoError(os.WriteFile(filepath.Join(*results, "report.txt"), []byte(text), 0o644))
		framework.ExpectNoError(err)
	})
	gomega.RegisterFailHandler(framework.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.RandomizeAllSpecs = true
	ginkgo.RunSpecs(t, "External Storage", suite, reporter)
}

// writeProgress appends a line for a spec that ended. All processes append to the same file,
// because Ginkgo shows the output of parallel processes only at the end.
func writeProgress(spec types.SpecReport) error {
	if !skiplist.HasRun(spec) {
		return nil
	}
	file, err := os.OpenFile(filepath.Join(*results, "progress.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = fmt.Fprintf(file, "%s %-7s %4.0f s  %s\n",
		time.Now().Format(time.TimeOnly), spec.State, spec.RunTime.Seconds(), skiplist.Name(spec))
	return err
}
