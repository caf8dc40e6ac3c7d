package prepare

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mirror has the URLs of Debian packages.
type Mirror struct {
	Archive, Security string
}

// publicMirror has every supported release and is available everywhere.
func publicMirror() Mirror {
	return Mirror{Archive: "http://deb.debian.org/debian", Security: "http://deb.debian.org/debian-security"}
}

// aptSource is one entry of apt's source lists.
type aptSource struct {
	uris, suites, components []string
}

// WithMirror calls fn with the host's mirrors, one after the other, until it succeeds.
func WithMirror(ctx context.Context, progress *Progress, fn func(Mirror) error) (err error) {
	for _, mirror := range hostMirrors("/") {
		if err != nil {
			progress.Printf("%v", err)
		}
		if err = fn(mirror); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// hostMirrors returns the mirrors in the host's apt configuration, in its order, and the public
// one last. Some entries may not be Debian mirrors. debootstrap checks signatures and rejects
// those.
func hostMirrors(root string) []Mirror {
	var sources []aptSource
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		paths, _ := filepath.Glob(filepath.Join(root, "etc/apt", pattern))
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			if strings.HasSuffix(path, ".sources") {
				sources = append(sources, parseStanzas(string(text))...)
			} else {
				sources = append(sources, parseLines(string(text))...)
			}
		}
	}
	for i := range sources {
		sources[i].uris = resolveMirrorFiles(root, sources[i].uris)
	}
	release, _ := os.ReadFile(filepath.Join(root, "etc/os-release"))
	return chooseMirrors(sources, OSReleaseField(string(release), "VERSION_CODENAME"))
}

// parseStanzas parses the deb822 format: paragraphs of "Key: value", in which lines that begin
// with white space continue a value.
func parseStanzas(text string) []aptSource {
	var sources []aptSource
	for _, stanza := range strings.Split(text, "\n\n") {
		fields := map[string][]string{}
		key := ""
		for _, line := range strings.Split(stanza, "\n") {
			switch {
			case strings.HasPrefix(line, "#"):
				continue
			case !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t"):
				name, value, _ := strings.Cut(line, ":")
				key, line = strings.ToLower(name), value
			}
			fields[key] = append(fields[key], strings.Fields(line)...)
		}
		if slices.Contains(fields["types"], "deb") && !slices.Contains(fields["enabled"], "no") {
			sources = append(sources, aptSource{fields["uris"], fields["suites"], fields["components"]})
		}
	}
	return sources
}

// parseLines parses the one-line format: deb [options] URI suite component…
func parseLines(text string) []aptSource {
	var sources []aptSource
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if before, rest, found := strings.Cut(line, "["); found {
			_, after, _ := strings.Cut(rest, "]")
			line = before + after
		}
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == "deb" {
			sources = append(sources, aptSource{fields[1:2], fields[2:3], fields[3:]})
		}
	}
	return sources
}

// resolveMirrorFiles replaces each mirror+file: URI by the mirrors that the file lists.
// Debian's cloud images use such URIs.
func resolveMirrorFiles(root string, uris []string) []string {
	var resolved []string
	for _, uri := range uris {
		path, isFile := strings.CutPrefix(uri, "mirror+file:")
		if !isFile {
			resolved = append(resolved, uri)
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
				resolved = append(resolved, fields[0])
			}
		}
	}
	return resolved
}

// chooseMirrors pairs each source of the host's release with its source of security updates, or
// with the usual path of these on a mirror.
func chooseMirrors(sources []aptSource, codename string) []Mirror {
	var archives, securities []string
	for _, source := range sources {
		if !slices.Contains(source.components, "main") {
			continue
		}
		for _, suite := range source.suites {
			switch suite {
			case codename, "stable", "oldstable", "testing":
				archives = append(archives, source.uris...)
			case codename + "-security", "stable-security", "oldstable-security", "testing-security":
				securities = append(securities, source.uris...)
			}
		}
	}
	var mirrors []Mirror
	for _, archive := range archives {
		archive = strings.TrimSuffix(archive, "/")
		security := archive + "-security"
		if len(securities) > 0 {
			security = strings.TrimSuffix(securities[0], "/")
		}
		mirrors = append(mirrors, Mirror{archive, security})
	}
	var unique []Mirror
	for _, m := range append(mirrors, publicMirror()) {
		if !slices.Contains(unique, m) {
			unique = append(unique, m)
		}
	}
	return unique
}

// OSReleaseField returns a field of the content of /etc/os-release, or "".
func OSReleaseField(osRelease, name string) string {
	for _, line := range strings.Split(osRelease, "\n") {
		if key, value, _ := strings.Cut(line, "="); key == name {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}
