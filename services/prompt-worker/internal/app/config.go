package app

import (
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Config is the environment of prompt-worker.
type Config struct {
	config.Common
	config.GRPC
	config.Internal
	config.Postgres
	config.Redis
	keyring.Config
	Egress           netguard.Config
	DatabaseMaxConns int32         `env:"DATABASE_MAX_CONNS" help:"most connections to the database" allowed:"4 to 1000"`
	RelayAddr        string        `env:"RELAY_ADDR" help:"gRPC address of outbox-relay" allowed:"host:port"`
	LeaseTTL         time.Duration `env:"LEASE_TTL" help:"how long the shards of a replica that crashed stay unserved" allowed:"1s to 10m"`
	RunsPerHook      int           `env:"RUNS_PER_HOOK" help:"async runs of a hook at once"`
	RunsPerOrg       int           `env:"RUNS_PER_ORG" help:"async runs of an organisation at once"`
	RunsAtOnce       int           `env:"RUNS_AT_ONCE" help:"async runs of this replica at once"`
	RunsMemory       int64         `env:"RUNS_MEMORY" help:"bytes of the events of async runs in memory"`
	ChainDepth       int           `env:"CHAIN_DEPTH" help:"how long a chain of hooks that trigger each other may be" allowed:"1 to 100"`
	RunRetention     time.Duration `env:"RUN_RETENTION" help:"how long finished runs, and what each day has spent, are kept; 0s keeps them for ever"`
	CallsAtOnce      int           `env:"CALLS_AT_ONCE" help:"calls of a provider's model at once, where the provider says nothing else"`
	Prices           string        `env:"PROMPT_PRICES" help:"what models cost per million tokens, in any one currency; the first that matches holds" allowed:"MODEL=INPUT/CACHED/OUTPUT, comma-separated, such as gpt-*=2.5/0.25/10"`
	OrgRuns          int64         `env:"ORG_BUDGET_RUNS" help:"calls of models that an organisation may make in a UTC day; 0 bounds nothing"`
	OrgTokens        int64         `env:"ORG_BUDGET_TOKENS" help:"tokens that an organisation may use in a UTC day; 0 bounds nothing"`
	OrgCost          int64         `env:"ORG_BUDGET_COST" help:"millionths of the currency that an organisation may spend in a UTC day; 0 bounds nothing"`
	McpStdio         []string      `env:"MCP_STDIO" help:"commands that MCP servers of transport stdio may be, each by its whole path with all its arguments; none unless named" allowed:"comma-separated, such as /usr/local/bin/tools --read-only"`
	MaskedPaths      []string      `env:"MASKED_PATHS" help:"fields of events that no model sees" allowed:"comma-separated, such as attributes.salary; * is any one name"`
	MaskedKeys       []string      `env:"MASKED_KEYS" help:"names whose values no model sees, wherever they stand" allowed:"comma-separated parts of names"`
}

// Validate refuses what would not work, or not as it should.
func (c *Config) Validate() []config.Problem {
	var out []config.Problem
	refuse := func(bad bool, name, text string) {
		if bad {
			out = append(out, config.Problem{Name: name, Text: text})
		}
	}
	refuse(c.DatabaseMaxConns < 4 || c.DatabaseMaxConns > 1000, "DATABASE_MAX_CONNS", "is out of range: want 4 to 1000")
	refuse(c.LeaseTTL < time.Second || c.LeaseTTL > 10*time.Minute, "LEASE_TTL", "is out of range: want 1s to 10m")
	refuse(c.RunsPerHook < 1, "RUNS_PER_HOOK", "is out of range: want 1 or more")
	refuse(c.RunsPerOrg < 1, "RUNS_PER_ORG", "is out of range: want 1 or more")
	refuse(c.RunsAtOnce < 1, "RUNS_AT_ONCE", "is out of range: want 1 or more")
	refuse(c.RunsMemory < 1, "RUNS_MEMORY", "is out of range: want 1 or more")
	refuse(c.ChainDepth < 1 || c.ChainDepth > 100, "CHAIN_DEPTH", "is out of range: want 1 to 100")
	refuse(c.RunRetention < 0, "RUN_RETENTION", "is negative: want 0s or more")
	refuse(c.CallsAtOnce < 1, "CALLS_AT_ONCE", "is out of range: want 1 or more")
	refuse(c.OrgRuns < 0, "ORG_BUDGET_RUNS", "is negative: want 0 or more")
	refuse(c.OrgTokens < 0, "ORG_BUDGET_TOKENS", "is negative: want 0 or more")
	refuse(c.OrgCost < 0, "ORG_BUDGET_COST", "is negative: want 0 or more")
	_, err := prompting.ParsePrices(c.Prices)
	refuse(err != nil, "PROMPT_PRICES", "is no table of prices: want MODEL=INPUT/CACHED/OUTPUT, comma-separated")
	_, err = prompting.NewMask(c.MaskedPaths, c.MaskedKeys)
	refuse(err != nil, "MASKED_PATHS", "or MASKED_KEYS cannot be used: want names")
	return out
}

// stdio are the commands that the operator allows.
func (c *Config) stdio() (out [][]string) {
	for _, command := range c.McpStdio {
		out = append(out, strings.Fields(command))
	}
	return out
}

func (c *Config) orgBudget() (l prompting.Limits) {
	for _, set := range []struct {
		value int64
		limit **int64
	}{{c.OrgRuns, &l.Runs}, {c.OrgTokens, &l.Tokens}, {c.OrgCost, &l.Cost}} {
		if set.value > 0 {
			*set.limit = &set.value
		}
	}
	return l
}

func defaults() Config {
	c := Config{
		DatabaseMaxConns: 20, RelayAddr: "127.0.0.1:9091", LeaseTTL: 30 * time.Second, RunsPerHook: 32, RunsPerOrg: 64, RunsAtOnce: 256,
		RunsMemory: 64 << 20, ChainDepth: 3, RunRetention: 90 * 24 * time.Hour, CallsAtOnce: 16, MaskedKeys: prompting.DefaultMaskedKeys(),
	}
	c.GRPCAddr, c.OpsAddr = ":9094", ":8094"
	return c
}
