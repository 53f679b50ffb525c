package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/double"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/deploy/torture/internal/prompts"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/rpc"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
)

// thinking is how long a model takes: long enough for a worker to die meanwhile.
const thinking = 60 * time.Millisecond

// farPrompts is the far end of the prompters.
type farPrompts struct {
	path   string
	record *prompts.Record
	models *prompts.Models
	hooks  []*prompts.Hook
	began  time.Time
	// grpc is the address of a prompter, writers those whose writes are reviewed; nil beside a double.
	grpc    string
	front   *rig.Front
	writers *prompts.Writers
	org     int64
}

const (
	prompterName    = "prompt-worker"
	prompterPackage = "./services/prompt-worker/cmd/prompt-worker"
	apiName         = "api-gateway"
	apiPackage      = "./services/api-gateway/cmd/api-gateway"
)

// openPrompts makes the tables and starts the models. Beside a double the hooks are known by now: it asks nobody.
func (r *run) openPrompts(ctx context.Context) error {
	packages := []string{prompterPackage}
	if r.o.reviews() {
		packages = append(packages, apiPackage)
	}
	if err := rig.Build(ctx, r.o.Root, r.o.Dir, packages...); err != nil {
		return err
	}
	if _, err := r.once(ctx, prompterName, r.servers.PostgresURL, "migrate"); err != nil {
		return err
	}
	p := &farPrompts{path: filepath.Join(r.o.Dir, "prompts"), hooks: prompts.Plan(orgs(), types(), r.o.Bulk), began: time.Now()}
	if r.o.Prompter != Real { // doubles have no budgets
		p.hooks = p.hooks[:2*len(orgs())]
	}
	var err error
	if p.record, err = prompts.CreateRecord(p.path); err != nil {
		return err
	}
	if p.models, err = prompts.Listen(ctx, p.record, thinking); err != nil {
		return errors.Join(err, p.record.Close())
	}
	r.prompts = p
	for _, h := range p.hooks {
		if r.o.Prompter != Real {
			h.ID = int64(h.Number) + 1
		}
	}
	return nil
}

// once runs a subcommand of a service to its end.
func (r *run) once(ctx context.Context, name, database string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.o.Dir, name), args...)
	cmd.Env = []string{"DATABASE_URL=" + database, "PASSWORD=correct horse battery staple"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}

// close ends the models. It may be called twice.
func (p *farPrompts) close() error {
	if p == nil || p.models == nil {
		return nil
	}
	err := errors.Join(p.models.Close(), p.record.Close())
	p.models = nil
	if p.front != nil {
		_ = p.front.Close() // its connections have ended with their peers
	}
	return err
}

// addPrompters prepares the prompters, real or double. addresses are two for each, and three for an api-gateway.
func (s *suite) addPrompters(ctx context.Context, r *run, addresses []string, common []string) error {
	p, o := r.prompts, r.o
	if o.Prompter != Real {
		for n := range o.Prompters {
			d, err := double.NewPrompter(fmt.Sprintf("prompter %d", n), o.Prompter, r.servers, p.hooks, p.models.URL)
			if err != nil {
				return err
			}
			s.prompters = append(s.prompters, d)
		}
		return nil
	}
	database, err := roleURL(ctx, r.servers, "sametick_prompt")
	if err != nil {
		return err
	}
	environ := slices.Concat(common, []string{"DATABASE_URL=" + database, "DATABASE_MAX_CONNS=8", "RELAY_ADDR=" + s.front.Address(), "ENCRYPTION_KEYS=" + keyring.Generate("torture"),
		"EGRESS_ALLOW=127.0.0.0/8", "EGRESS_HTTP=true", "LEASE_TTL=4500ms", "RUNS_PER_HOOK=64", "RUNS_PER_ORG=128"})
	var targets []string
	for n := range o.Prompters {
		grpc, ops := addresses[2*n], addresses[2*n+1]
		targets = append(targets, grpc)
		s.add(&s.prompters, fmt.Sprintf("prompter %d", n), filepath.Join(o.Dir, prompterName), ops, o.Dir, append(environ, "GRPC_ADDR="+grpc, "OPS_ADDR="+ops))
	}
	p.grpc = addresses[0]
	if p.front, err = rig.NewFront(targets); err != nil {
		return err
	}
	return s.addAPI(ctx, r, addresses[2*o.Prompters:], common)
}

// addAPI prepares an api-gateway, and founds the organisation whose writes are reviewed.
func (s *suite) addAPI(ctx context.Context, r *run, addresses, common []string) error {
	if _, err := r.once(ctx, apiName, r.servers.PostgresURL, "migrate"); err != nil {
		return err
	}
	database, err := roleURL(ctx, r.servers, "sametick_api")
	if err != nil {
		return err
	}
	out, err := r.once(ctx, apiName, database, "bootstrap", "--org", "Reviewed", "--email", "writer@example.com", "--password-env", "PASSWORD")
	if err != nil {
		return err
	}
	var founded struct {
		OrgID  int64  `json:"org_id"`
		APIKey string `json:"api_key"`
	}
	if err := json.Unmarshal(out, &founded); err != nil {
		return fmt.Errorf("%s bootstrap answered %q: %w", apiName, out, err)
	}
	web, grpc, ops := addresses[0], addresses[1], addresses[2]
	s.add(&s.api, apiName, filepath.Join(r.o.Dir, apiName), ops, r.o.Dir, append(common, "DATABASE_URL="+database, "DATABASE_MAX_CONNS=8",
		"RELAY_ADDR="+s.front.Address(), "PROMPT_ADDR="+r.prompts.front.Address(), "TOKEN_SIGNING_KEY="+s.signing, "TOKEN_PUBLIC_KEYS="+s.public,
		"HTTP_ADDR="+web, "GRPC_ADDR="+grpc, "OPS_ADDR="+ops))
	r.prompts.org = founded.OrgID
	r.prompts.writers = &prompts.Writers{URL: "http://" + web, Token: founded.APIKey, Think: 100 * time.Millisecond, Seed: r.o.Seed,
		Types: []*prompts.Reviewed{{Type: "announcement"}, {Type: "feedback", FailOpen: true}}}
	return nil
}

// makeHooks asks a real prompter for the hooks of the plan and those that review, as their organisations' owners.
func (r *run) makeHooks(ctx context.Context) (err error) {
	if r.prompts == nil || r.o.Prompter != Real {
		return nil
	}
	conn, err := rpc.Dial(r.prompts.grpc, rpc.ClientOptions{Token: r.suite.internal, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	m := &hookMaker{client: promptsv1.NewPromptServiceClient(conn), models: r.prompts.models, templates: map[int64]int64{}, providers: map[provider]int64{}}
	for _, h := range r.prompts.hooks {
		if err := m.async(caller(ctx, h.OrgID), h); err != nil {
			return fmt.Errorf("make a hook: %w", err)
		}
	}
	for _, t := range r.prompts.writers.Types {
		if err := m.review(caller(ctx, r.prompts.org), t); err != nil {
			return fmt.Errorf("make a hook that reviews: %w", err)
		}
	}
	return nil
}

func caller(ctx context.Context, org int64) context.Context {
	return rpc.WithCaller(ctx, rpc.Caller{OrgID: org, Subject: auth.Subject(auth.SubjectUser, 1), Scopes: auth.ScopesOf(auth.PromptsManage).String()})
}

// provider is one of an organisation.
type provider struct {
	org   int64
	moody bool
}

// hookMaker makes hooks, and what they need once for each organisation.
type hookMaker struct {
	client    promptsv1.PromptServiceClient
	models    *prompts.Models
	templates map[int64]int64
	providers map[provider]int64
}

func (m *hookMaker) async(ctx context.Context, h *prompts.Hook) error {
	req := &promptsv1.CreateHookRequest{Name: h.ModelName(), Mode: "async", EventTypes: h.EventTypes(), Condition: h.Condition}
	if !h.Model {
		req.Rules = []*promptsv1.Rule{{Id: "event", Expression: "event.id"}}
	} else {
		if err := m.model(ctx, h); err != nil {
			return err
		}
		req.TemplateId, req.TemplateVersion, req.ProviderId = m.templates[h.OrgID], 1, m.providers[provider{h.OrgID, h.Moody}]
		req.Model, req.TimeoutMs = h.ModelName(), 2000
	}
	if h.Runs > 0 {
		req.Budget = &promptsv1.Budget{Runs: &h.Runs}
	}
	made, err := m.client.CreateHook(ctx, req)
	h.ID = made.GetId()
	return err
}

// model makes a hook's template and provider, unless its organisation has them.
func (m *hookMaker) model(ctx context.Context, h *prompts.Hook) error {
	if m.templates[h.OrgID] == 0 {
		made, err := m.client.CreateTemplate(ctx, &promptsv1.CreateTemplateRequest{Name: "torture", Messages: []*promptsv1.Message{{Role: "user", Text: prompts.Template}},
			Variables: []*promptsv1.Variable{{Name: "id", Path: "id"}, {Name: "name", Path: "payload.record_name"}}})
		if err != nil {
			return err
		}
		m.templates[h.OrgID] = made.GetId()
	}
	key := provider{h.OrgID, h.Moody}
	if m.providers[key] != 0 {
		return nil
	}
	made, err := m.client.CreateProvider(ctx, &promptsv1.CreateProviderRequest{Name: "torture", Kind: "openai", BaseUrl: m.models.URL(h.Moody), DefaultModel: "m"})
	m.providers[key] = made.GetId()
	return err
}

func (m *hookMaker) review(ctx context.Context, t *prompts.Reviewed) error {
	policy := "fail_closed"
	if t.FailOpen {
		policy = "fail_open"
	}
	made, err := m.client.CreateHook(ctx, &promptsv1.CreateHookRequest{Name: policy, Mode: "review", EventTypes: []string{t.EventType()}, FailurePolicy: policy,
		Rules: []*promptsv1.Rule{{Id: "bad", Expression: prompts.Rule, Reason: "it is named bad"}}})
	t.HookID = made.GetId()
	return err
}

// promptCampaigns are the plan of the storm for prompts.
func (r *run) promptCampaigns(every func(time.Duration) time.Duration) (list []chaos.Campaign) {
	if r.prompts == nil {
		return nil
	}
	list = append(list, chaos.Model(r.prompts.models, every(6*time.Second)), chaos.Runs(r.servers, every(10*time.Second)))
	list = append(list, chaos.Prompters(r.suite.prompters, every(5*time.Second), every(20*time.Second))...)
	for _, replica := range r.suite.api {
		list = append(list, chaos.Gateway(replica, every(20*time.Second)))
	}
	return list
}

// burst brings the hooks with a budget to its edge, in the middle of the storm.
func (r *run) burst(ctx context.Context) error {
	chaos.Pause(ctx, r.o.Duration/3)
	for _, h := range r.prompts.hooks {
		if ids := h.Burst(); len(ids) > 0 {
			if err := r.load.Burst(ctx, h.OrgID, h.Type, ids); err != nil {
				return err
			}
		}
	}
	return nil
}

// promptState is how far runs have come.
type promptState struct{ positions, scheduled, waiting, later int64 }

// drainPrompts waits until everything is scheduled and run, or nothing moves. Models are well by now.
func (r *run) drainPrompts(ctx context.Context) error {
	if r.prompts == nil {
		return nil
	}
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	still := quiet
	if r.o.Prompter != Real {
		still = quietDouble + time.Second // an attempt that has begun keeps its time
	}
	// Some rounds, since an attempt may be put off meanwhile, by what was broken when it began.
	for range 4 {
		var s promptState
		err := settle(ctx, still, func() (any, bool, error) {
			var err error
			s, err = lookAtPrompts(ctx, conn)
			return s, s.scheduled == s.positions && s.waiting == s.later, err
		})
		if err != nil || s.waiting == 0 && s.scheduled == s.positions {
			return err
		}
		if err := r.hurryPrompts(ctx); err != nil {
			return err
		}
	}
	return nil // what is missing is the judge's to count
}

// hurryPrompts makes retries due. Prompters begin anew: one that has read that a row is due later reads it again.
func (r *run) hurryPrompts(ctx context.Context) error {
	if _, err := chaos.HurryRuns(ctx, r.servers); err != nil {
		return fmt.Errorf("make retries of runs due: %w", err)
	}
	for _, p := range r.suite.prompters {
		if err := p.Terminate(20 * time.Second); err != nil {
			r.report.Unclean = append(r.report.Unclean, err.Error())
		}
	}
	return errors.Join(r.suite.start(ctx), r.suite.awaitReady(ctx))
}

func lookAtPrompts(ctx context.Context, conn *pgx.Conn) (s promptState, err error) {
	err = conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM sametick.positions WHERE shard IN (SELECT shard FROM sametick.consumer_cursors WHERE consumer = 'prompts')),
		(SELECT coalesce(sum(position), 0) FROM sametick.consumer_cursors WHERE consumer = 'prompts'),
		(SELECT count(*) FROM sametick.prompt_queue), (SELECT count(*) FROM sametick.prompt_queue WHERE NOT calling AND due_at > now() + interval '2 s')`).
		Scan(&s.positions, &s.scheduled, &s.waiting, &s.later)
	if err != nil {
		return s, fmt.Errorf("look at prompts: %w", err)
	}
	return s, nil
}

// judgePrompts compares what the models were asked, what the runs say and what was written after a review with what was
// committed.
func (r *run) judgePrompts(ctx context.Context, conn judge.Querier, facts *judge.Facts, log *judge.Log) (verdicts []*judge.Verdict, err error) {
	p := r.prompts
	if err := p.close(); err != nil {
		return nil, err
	}
	file, err := os.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("open the record of calls: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	runs := judge.NewRuns(facts, log, p.hooks)
	if err := prompts.Read(file, runs.Take); err != nil {
		return nil, err
	}
	if err := judge.LoadRuns(ctx, conn, runs); err != nil {
		return nil, err
	}
	first, last := p.began.UTC().Truncate(24*time.Hour), time.Now().UTC().Truncate(24*time.Hour)
	verdicts, r.report.Prompts = runs.Finish(1 + int64(last.Sub(first)/(24*time.Hour)))
	if p.writers == nil {
		return verdicts, nil
	}
	reviews := judge.NewReviews(p.writers.Types)
	if err := judge.LoadReviews(ctx, conn, reviews); err != nil {
		return nil, err
	}
	for _, w := range p.writers.Writes() {
		reviews.Take(&w)
	}
	var reviewed *judge.Verdict
	reviewed, r.report.Reviews = reviews.Finish()
	return append(verdicts, reviewed), nil
}
