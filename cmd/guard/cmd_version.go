package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"guard/matcher"
)

var versionCommand = command{name: "version", args: "[--json]", short: "say which guard this is", example: "guard version", run: runVersion}

func runVersion(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object")
	if err := parse(f, args); err != nil {
		return err
	}
	version, revision := version(), ""
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	m, err := matcher.New(nil)
	if err != nil {
		return err
	}
	defer m.Close()
	if *asJSON {
		return a.printJSON(map[string]string{"version": version, "revision": revision, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "engine": m.Engine()})
	}
	_, err = fmt.Fprintf(a.stdout, "guard %s, %s %s/%s, engine %s\n", strings.TrimSpace(version+" "+revision), runtime.Version(), runtime.GOOS, runtime.GOARCH, m.Engine())
	return err
}

// version is this guard's, "devel" where it was built from a checkout.
func version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}
