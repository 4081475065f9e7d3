package exec

import (
	"errors"
	"fmt"
	"io/fs"
	osexec "os/exec"
)

const rootDir = `C:\`

func group(*osexec.Cmd) {}

// private refuses: the access list that would have to be judged is not read.
func private(fs.FileInfo) error {
	return fmt.Errorf("the exec rotation provider is not on Windows: who may write to a program is not known: %w", errors.ErrUnsupported)
}
