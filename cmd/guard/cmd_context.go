package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

var contextCommand = command{
	name: "context", args: "ls | add NAME PATH... | rm PATH... | seal NAME --unlock KIND | unseal NAME", short: "say which folders belong to which context; seal a context with a key of its own",
	example: "guard context add acme/dev ~/work/acme\nguard context seal acme/prod --unlock passphrase\nguard context ls",
	run:     runContext,
}

func runContext(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object a folder")
	var seal sealFlags
	seal.add(f)
	if err := parse(f, args); err != nil {
		return err
	}
	if verb := f.Arg(0); verb == "seal" || verb == "unseal" {
		return a.sealContext(verb, f.Args()[1:], seal)
	}
	if err := a.outsideUnless("ls", f.Arg(0)); err != nil {
		return err
	}
	cs, err := a.loadContexts()
	if err != nil {
		return err
	}
	switch verb := f.Arg(0); verb {
	case "ls":
		rows := [][]string{{"CONTEXT", "FOLDER"}}
		for _, dir := range slices.Sorted(maps.Keys(cs.Folders)) {
			if *asJSON {
				if err := a.printJSON(map[string]string{"context": cs.Folders[dir], "folder": dir}); err != nil {
					return err
				}
			}
			rows = append(rows, []string{cs.Folders[dir], dir})
		}
		if *asJSON {
			return nil
		}
		if len(rows) == 1 {
			a.say("no folder has a context yet: all are %q", defaultContext)
			return nil
		}
		return a.table(rows)
	case "add":
		if f.NArg() < 3 {
			return usagef("context add needs NAME and at least one PATH")
		}
		name := f.Arg(1)
		if err := checkContext(name); err != nil {
			return err
		}
		if strings.Contains(name, "@") {
			return usagef("context %q: a folder belongs to a project and an environment; --profile says for whom", name)
		}
		for _, p := range f.Args()[2:] {
			dir, err := canonicalFolder(p)
			if err != nil {
				return err
			}
			cs.Folders[dir] = name
		}
	case "rm":
		if f.NArg() < 2 {
			return usagef("context rm needs at least one PATH")
		}
		for _, p := range f.Args()[1:] {
			dir, err := filepath.Abs(p)
			if err != nil {
				return err
			}
			if c, err := filepath.EvalSymlinks(dir); err == nil {
				dir = c
			}
			if _, ok := cs.Folders[dir]; !ok {
				return fmt.Errorf("%s has no context of its own", dir)
			}
			delete(cs.Folders, dir)
		}
	default:
		return usagef("context %q: want ls, add, rm, seal or unseal", verb)
	}
	b, err := json.MarshalIndent(cs, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(a.contextsPath(), b)
}

func canonicalFolder(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", fmt.Errorf("context folder: %w", err)
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return "", fmt.Errorf("%s is not a folder", dir)
	}
	return dir, nil
}
