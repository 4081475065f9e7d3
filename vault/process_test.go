package vault

import "fmt"

func children(name string) int {
	fmt.Println("no such child", name)
	return 2
}
