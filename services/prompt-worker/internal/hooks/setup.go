package hooks

// Setup is a hook with what it runs by, read in one transaction right before it is used: a prompt must not outlive
// the move of its label, nor a key its replacement.
type Setup struct {
	Hook
	// Template is nil for a hook of rules alone.
	Template *Template
	// Versions are those that Pick may give, by number.
	Versions map[int]*Version
	// Providers are those of Hook.Providers that are not archived, in order.
	Providers []Provider
	// Servers are those of Hook.Tools that are not archived.
	Servers []Server
}

// Wanted are the numbers of the versions that Pick may give.
func (h *Hook) Wanted(t *Template) []int {
	var out []int
	for _, try := range []Hook{
		{Settings: Settings{TemplateVersion: h.TemplateVersion, TemplateLabel: h.TemplateLabel}},
		{Settings: Settings{TemplateVersion: h.CandidateVersion}},
	} {
		if n, err := t.Resolve(try.TemplateVersion, try.TemplateLabel); err == nil {
			out = append(out, n)
		}
	}
	return out
}
