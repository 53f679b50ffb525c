package netguard

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// control judges once more the very address that a socket is about to connect to.
func (g *Guard) control(name string) func(network, address string, _ syscall.RawConn) error {
	return func(network, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return &Refused{name, "not an address of TCP"}
		}
		return g.judge(name, ap.Addr())
	}
}

// ProxyError is a fault of the egress proxy, not of who was called. It shows no address.
type ProxyError struct {
	// Status of its answer to CONNECT; 0 when there was none.
	Status int
	// Err is what else went wrong, for the log of the operator.
	Err error
}

// Error tells the status.
func (e *ProxyError) Error() string {
	if e.Status == 0 {
		return "the egress proxy is out of reach"
	}
	return fmt.Sprintf("the egress proxy answered %d", e.Status)
}

// Unwrap gives the cause.
func (e *ProxyError) Unwrap() error { return e.Err }

// tunnel connects to the address through the proxy.
func (g *Guard) tunnel(ctx context.Context, address string) (net.Conn, error) {
	conn, err := g.dialProxy(ctx)
	if err != nil {
		return nil, &ProxyError{Err: err}
	}
	// The handshake ends with ctx, which the connection outlives.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	status, err := connect(conn, g.proxy, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil || status/100 != 2 {
		_ = conn.Close()
		return nil, &ProxyError{status, err}
	}
	return conn, nil
}

func (g *Guard) dialProxy(ctx context.Context) (net.Conn, error) {
	port := g.proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[g.proxy.Scheme]
	}
	address := net.JoinHostPort(g.proxy.Hostname(), port)
	if g.proxy.Scheme == "https" {
		d := tls.Dialer{Config: &tls.Config{ServerName: g.proxy.Hostname(), MinVersion: tls.VersionTLS12}}
		return d.DialContext(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// maxProxyAnswer bounds the head of the proxy's answer, in bytes.
const maxProxyAnswer = 16 << 10

// connect asks for a tunnel and gives the answer's status. The one called speaks only after we have, so what follows
// the head at once is a fault.
func connect(conn net.Conn, proxy *url.URL, address string) (int, error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": {""}}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 == 2 && r.Buffered() > 0 {
		return resp.StatusCode, fmt.Errorf("netguard: the proxy sent more than its answer")
	}
	return resp.StatusCode, nil
}
