package docs

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// How the code names the constants that the documents list.
var (
	eventReason    = regexp.MustCompile(`^[rR]eason[A-Z]`)
	annotationName = regexp.MustCompile(`^[aA]nn(otation)?[A-Z]`)
)

// sources are parsed Go files, without tests.
type sources struct {
	files   []*ast.File
	strings []string // all string literals
}

// parseProduct parses the product: all packages but those for tests.
func parseProduct(t *testing.T) sources {
	t.Helper()
	return parseSources(t, "../cmd", "../provisioner", "../rbdutil")
}

// parseLibrary parses the provisioning library, which sends events too.
func parseLibrary(t *testing.T) sources {
	t.Helper()
	pkg, err := build.Import("sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	return parseSources(t, pkg.Dir)
}

func parseSources(t *testing.T, roots ...string) sources {
	t.Helper()
	var s sources
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains([]string{"testdata", "rbdtest", "rbdfake", "fixture"}, entry.Name()):
				return filepath.SkipDir
			case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			s.files = append(s.files, file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.inspect(func(n ast.Node) {
		if text, ok := literal(n); ok {
			s.strings = append(s.strings, text)
		}
	})
	return s
}

func (s sources) inspect(visit func(ast.Node)) {
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			if n != nil {
				visit(n)
			}
			return true
		})
	}
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// constants returns the values of the string constants with such a name.
func (s sources) constants(name *regexp.Regexp) []string {
	var values []string
	s.inspect(func(n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return
		}
		for i, value := range spec.Values {
			if text, ok := literal(value); ok && name.MatchString(spec.Names[i].Name) {
				values = append(values, text)
			}
		}
	})
	return values
}

// eventLiterals returns the reasons of events that are literals in the call.
func (s sources) eventLiterals() []string {
	var reasons []string
	s.inspect(func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 4 {
			return
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || method.Sel.Name != "Event" && method.Sel.Name != "Eventf" {
			return
		}
		if text, ok := literal(call.Args[2]); ok {
			reasons = append(reasons, text)
		}
	})
	return reasons
}

// sentinels returns the texts of the exported error variables.
func (s sources) sentinels() []string {
	var texts []string
	s.inspect(func(n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return
		}
		for i, value := range spec.Values {
			call, ok := value.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 || !strings.HasPrefix(spec.Names[i].Name, "Err") {
				continue
			}
			if text, ok := literal(call.Args[0]); ok {
				texts = append(texts, text)
			}
		}
	})
	return texts
}

// listWith returns the list of strings in the code that has all of the items.
func (s sources) listWith(items ...string) []string {
	var list []string
	s.inspect(func(n ast.Node) {
		composite, ok := n.(*ast.CompositeLit)
		if !ok {
			return
		}
		var elements []string
		for _, element := range composite.Elts {
			if text, ok := literal(element); ok {
				elements = append(elements, text)
			}
		}
		for _, item := range items {
			if !slices.Contains(elements, item) {
				return
			}
		}
		list = elements
	})
	return list
}
