package attack

import "slices"

// Cases are all attacks, in the order in which they are tried: what may spoil the
// session comes last.
func Cases() []Case {
	return slices.Concat(processCases(), keyringCases(), fileCases(), socketCases(), networkCases(), placeholderCases(), searchCases(), approvalCases(), resourceCases(), persistCases(), terminalCases(), lastCases())
}
