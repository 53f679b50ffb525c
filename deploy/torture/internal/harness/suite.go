package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/double"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
	"github.com/sametick/sametick/pkg/auth"
)

// suite is what is under torture: relays, gateways, workers and prompters, real or double.
type suite struct {
	relays []chaos.Replica
	// extra is started only by chaos.
	extra     chaos.Replica
	gateways  []chaos.Replica
	workers   []chaos.Replica
	prompters []chaos.Replica
	api       []chaos.Replica
	urls      []string
	front     *rig.Front
	processes []*rig.Process
	signer    *auth.Signer
	// webhooks is the gRPC address of a worker, internal the token between services.
	webhooks, internal string
	// signing and public are the keys of access tokens.
	signing, public string
	// ops are the processes' base URLs, in their order.
	ops []string
}

// newSuite builds what has to be built and prepares all replicas; none runs yet.
func (r *run) newSuite(ctx context.Context) (*suite, error) {
	o, servers := r.o, r.servers
	if o.webhooks() {
		if err := r.openWebhooks(ctx); err != nil {
			return nil, err
		}
	}
	if o.prompts() {
		if err := r.openPrompts(ctx); err != nil {
			return nil, err
		}
	}
	if o.Relay == Real {
		return r.newRealSuite(ctx)
	}
	s := &suite{}
	for n := range o.Relays + 1 {
		d, err := double.New(fmt.Sprintf("relay %d", n), o.Relay, servers)
		if err != nil {
			return nil, err
		}
		s.relays = append(s.relays, d)
	}
	s.extra, s.relays = s.relays[o.Relays], s.relays[:o.Relays]
	if o.webhooks() {
		if err := s.addWorkers(ctx, r, nil, nil); err != nil {
			return nil, err
		}
	}
	if o.prompts() {
		return s, s.addPrompters(ctx, r, nil, nil)
	}
	return s, nil
}

func (r *run) newRealSuite(ctx context.Context) (*suite, error) {
	o, servers := r.o, r.servers
	if err := build(ctx, o); err != nil {
		return nil, err
	}
	signing, public, err := auth.GenerateKey("torture")
	if err != nil {
		return nil, err
	}
	s := &suite{signing: signing, public: public}
	if s.signer, err = auth.ParseSigner(signing); err != nil {
		return nil, err
	}
	database, err := roleURL(ctx, servers, "sametick_relay")
	if err != nil {
		return nil, err
	}
	addresses, err := rig.FreeAddresses(2*(o.Relays+1) + 3*o.Gateways + 2*o.Workers + 2*o.Prompters + 3)
	if err != nil {
		return nil, err
	}
	s.internal = rand.Text()
	common := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + o.Dir, "TMPDIR=" + o.Dir, "LOG_LEVEL=info",
		"REDIS_URL=" + servers.RedisURL, "INTERNAL_TOKEN=" + s.internal,
	}
	var targets []string
	for n := range o.Relays + 1 {
		grpc, ops := addresses[2*n], addresses[2*n+1]
		targets = append(targets, grpc)
		s.add(&s.relays, fmt.Sprintf("relay %d", n), filepath.Join(o.Dir, "outbox-relay"), ops, o.Dir,
			append(common, "DATABASE_URL="+database, "GRPC_ADDR="+grpc, "OPS_ADDR="+ops, "BATCH_EVENTS="+batchEvents(n)))
	}
	s.extra, s.relays = s.relays[o.Relays], s.relays[:o.Relays]
	if s.front, err = rig.NewFront(targets); err != nil {
		return nil, err
	}
	addresses = addresses[2*(o.Relays+1):]
	if err := s.addGateways(o, addresses, common, s.internal, public); err != nil {
		return nil, err
	}
	addresses = addresses[3*o.Gateways:]
	if o.webhooks() {
		if err := s.addWorkers(ctx, r, addresses, common); err != nil {
			return nil, errors.Join(err, s.front.Close())
		}
	}
	if o.prompts() {
		if err := s.addPrompters(ctx, r, addresses[2*o.Workers:], common); err != nil {
			return nil, errors.Join(err, s.front.Close())
		}
	}
	return s, nil
}

// batchEvents gives a replica's batch size. They differ, and most are small: a backlog beyond a batch is
// read in another way than a small one, and taken over in the middle by a replica that cuts it otherwise.
func batchEvents(n int) string { return []string{"5000", "150", "20"}[n%3] }

// build compiles what a run needs.
func build(ctx context.Context, o *Options) error {
	packages := []string{"./services/outbox-relay/cmd/outbox-relay"}
	if o.Gateways > 0 && o.Gateway == Real {
		packages = append(packages, "./services/sse-gateway/cmd/sse-gateway")
	}
	return rig.Build(ctx, o.Root, o.Dir, packages...)
}

// addGateways prepares the gateways, real or double.
func (s *suite) addGateways(o *Options, addresses, common []string, internal, public string) error {
	for n := range o.Gateways {
		web, grpc, ops := addresses[3*n], addresses[3*n+1], addresses[3*n+2]
		name := fmt.Sprintf("gateway %d", n)
		s.urls = append(s.urls, "http://"+web)
		if o.Gateway == Right {
			g, err := double.NewGateway(name, web, s.front.Address(), internal, public)
			if err != nil {
				return errors.Join(err, s.front.Close())
			}
			s.gateways = append(s.gateways, g)
			continue
		}
		s.add(&s.gateways, name, filepath.Join(o.Dir, "sse-gateway"), ops, o.Dir,
			append(common, "RELAY_ADDR="+s.front.Address(), "HTTP_ADDR="+web, "GRPC_ADDR="+grpc, "OPS_ADDR="+ops,
				"HEARTBEAT_INTERVAL=2s", "TOKEN_PUBLIC_KEYS="+public))
	}
	return nil
}

// add prepares one process.
func (s *suite) add(list *[]chaos.Replica, name, binary, ops, dir string, environ []string) {
	p := rig.NewProcess(name, binary, append([]string(nil), environ...), filepath.Join(dir, name+".log"))
	*list = append(*list, p)
	s.processes = append(s.processes, p)
	s.ops = append(s.ops, "http://"+ops)
}

// roleURL gives a role a password of its own and answers how to connect as it: the services run with
// the rights that they are granted, not as superuser.
func roleURL(ctx context.Context, servers *rig.Servers, role string) (string, error) {
	conn, err := servers.Postgres(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	password := rand.Text()
	if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password)); err != nil {
		return "", fmt.Errorf("give %s a password: %w", role, err)
	}
	u, err := url.Parse(servers.PostgresURL)
	if err != nil {
		return "", fmt.Errorf("address of Postgres: %w", err)
	}
	u.User = url.UserPassword(role, password)
	return u.String(), nil
}

// token makes an access token as the api-gateway would.
func (s *suite) token(org int64) (string, error) {
	user := int64(1)
	signed, _, err := s.signer.Sign(auth.Principal{OrgID: org, UserID: &user, Subject: auth.Subject(auth.SubjectUser, user),
		Scopes: auth.ScopesOf("events:read")}, time.Hour)
	return signed, err
}

// start starts all but the extra relay, and lets go on what is stopped: for the beginning, and to heal.
func (s *suite) start(ctx context.Context) error {
	var all []error
	for _, list := range [][]chaos.Replica{s.relays, s.gateways, s.workers, s.prompters, s.api} {
		for _, r := range list {
			r.Continue()
			all = append(all, r.Start(ctx))
		}
	}
	return errors.Join(all...)
}

// awaitReady waits until each replica that should run says that it is ready.
func (s *suite) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for i, p := range s.processes {
		if p == s.extra {
			continue
		}
		for {
			err := ready(ctx, s.ops[i]+"/readyz")
			if err == nil {
				break
			}
			chaos.Pause(ctx, 50*time.Millisecond)
			if ctx.Err() != nil {
				return fmt.Errorf("%s is not ready after a minute: %w", p.Name(), err)
			}
		}
	}
	return nil
}

// ready asks a /readyz; its text is the error.
func ready(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode == http.StatusOK {
		return err
	}
	return fmt.Errorf("%s: %s", resp.Status, text)
}

// stop ends everything, gently first; it tells who did not go cleanly.
func (s *suite) stop() []string {
	var failed []string
	all := slices.Concat(s.api, s.prompters, s.workers, s.gateways, s.relays)
	if s.extra != nil {
		all = append(all, s.extra)
	}
	for _, r := range all {
		if err := r.Terminate(20 * time.Second); err != nil {
			failed = append(failed, err.Error())
		}
	}
	for _, p := range s.processes {
		failed = append(failed, p.Deaths()...)
	}
	if s.front != nil {
		_ = s.front.Close() // its connections have ended with their peers
	}
	return failed
}
