package sandbox

func Probe() Report      { return Report{} }
func (in *inner) probe() {}
