package formats

import (
	"embed"
	"fmt"
	"io/fs"
	"sync"
)

//go:embed rules/*.toml
var ruleFiles embed.FS

// builtin are the rules of the folder rules, a file a provider. They are parsed
// once.
var builtin = sync.OnceValues(func() ([]Rule, error) {
	var list []Rule
	err := fs.WalkDir(ruleFiles, "rules", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := ruleFiles.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		rules, err := LoadTOML(f, path)
		for i := range rules {
			rules[i].builtin = true
		}
		list = append(list, rules...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("built-in rules: %w", err)
	}
	return list, nil
})
