package suite

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// Ports of a service on 127.0.0.1; 0 where it has none.
type Ports struct{ HTTP, GRPC, Ops int }

// Names are the services, in the order of their start.
func Names() []string {
	return []string{"outbox-relay", "sse-gateway", "webhook-worker", "prompt-worker", "api-gateway"}
}

// DefaultPorts are the documented ones, moved up by offset.
func DefaultPorts(offset int) map[string]Ports {
	return map[string]Ports{
		"api-gateway":    {HTTP: 8080 + offset, GRPC: 9090 + offset, Ops: 8090 + offset},
		"outbox-relay":   {GRPC: 9091 + offset, Ops: 8091 + offset},
		"sse-gateway":    {HTTP: 8082 + offset, GRPC: 9092 + offset, Ops: 8092 + offset},
		"webhook-worker": {GRPC: 9093 + offset, Ops: 8093 + offset},
		"prompt-worker":  {GRPC: 9094 + offset, Ops: 8094 + offset},
	}
}

// FreePorts finds ports that are free now.
func FreePorts() (map[string]Ports, error) {
	ports := map[string]Ports{}
	for _, name := range Names() {
		var p [3]int
		for i := range p {
			l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // no name to resolve
			if err != nil {
				return nil, fmt.Errorf("no free port: %w", err)
			}
			defer func() { _ = l.Close() }() // all at the end, so that none is given twice
			p[i] = l.Addr().(*net.TCPAddr).Port
		}
		ports[name] = Ports{HTTP: p[0], GRPC: p[1], Ops: p[2]}
	}
	return ports, nil
}

// checkPorts finds a taken port before anything is started, when there is still one thing to say.
func (s *Suite) checkPorts(context.Context) error {
	for _, name := range Names() {
		p := s.o.Ports[name]
		for what, port := range map[string]int{"HTTP": p.HTTP, "gRPC": p.GRPC, "ops": p.Ops} {
			if port == 0 {
				continue
			}
			l, err := net.Listen("tcp4", local(port)) //nolint:noctx // no name to resolve
			if err != nil {
				return fmt.Errorf("port %d, %s's %s, is taken: stop what listens there (`ss -ltnp 'sport = :%d'` names it), or move all ports: make up PORT_OFFSET=1000",
					port, name, what, port)
			}
			if err := l.Close(); err != nil {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
	}
	return nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// environment is what a service is configured by.
func (s *Suite) environment(name string) []string {
	p := s.o.Ports[name]
	env := []string{"PATH=/usr/bin:/bin", "LOG_LEVEL=" + s.getenv("LOG_LEVEL"), "INTERNAL_TOKEN=" + s.Secrets.InternalToken,
		"TOKEN_PUBLIC_KEYS=" + s.Secrets.PublicKey, "REDIS_URL=" + s.RedisURL, "OPS_ADDR=" + local(p.Ops), "GRPC_ADDR=" + local(p.GRPC)}
	if p.HTTP != 0 {
		env = append(env, "HTTP_ADDR="+local(p.HTTP))
	}
	switch name {
	case "api-gateway":
		env = append(env, "CORS_ORIGINS=*", "DATABASE_URL="+s.roleURL("sametick_api"), "TOKEN_SIGNING_KEY="+s.Secrets.SigningKey,
			"RELAY_ADDR="+local(s.o.Ports["outbox-relay"].GRPC), "SSE_URL=http://"+local(s.o.Ports["sse-gateway"].HTTP),
			"STREAM_ADDR="+local(s.o.Ports["sse-gateway"].GRPC), "WEBHOOK_ADDR="+local(s.o.Ports["webhook-worker"].GRPC),
			"PROMPT_ADDR="+local(s.o.Ports["prompt-worker"].GRPC))
	case "outbox-relay":
		env = append(env, "DATABASE_URL="+s.roleURL("sametick_relay"), "AUDIT_SIGNING_KEY="+s.Secrets.AuditSigningKey)
	case "sse-gateway":
		// A page under development comes from any port. A stream needs a token and takes no cookie, so
		// that a foreign page gains nothing by this.
		env = append(env, "CORS_ORIGINS=*", "RELAY_ADDR="+local(s.o.Ports["outbox-relay"].GRPC), "API_ADDR="+local(s.o.Ports["api-gateway"].GRPC))
	case "prompt-worker":
		// A model under development is on this machine, too.
		env = append(env, "DATABASE_URL="+s.roleURL("sametick_prompt"), "RELAY_ADDR="+local(s.o.Ports["outbox-relay"].GRPC),
			"ENCRYPTION_KEYS="+s.Secrets.EncryptionKeys, "EGRESS_ALLOW=127.0.0.0/8,::1,localhost", "EGRESS_HTTP=true")
	case "webhook-worker":
		// A receiver under development is on this machine, without TLS. Nothing else that is not public may be called.
		env = append(env, "DATABASE_URL="+s.roleURL("sametick_webhook"), "RELAY_ADDR="+local(s.o.Ports["outbox-relay"].GRPC),
			"ENCRYPTION_KEYS="+s.Secrets.EncryptionKeys, "EGRESS_ALLOW=127.0.0.0/8,::1,localhost", "EGRESS_HTTP=true")
	}
	return append(env, s.o.Extra[name]...)
}
