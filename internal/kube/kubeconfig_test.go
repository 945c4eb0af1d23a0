package kube

import (
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
)

const hidden = "s3cret-never-shown"

// kubeconfigText is a kubeconfig with these fields of its cluster and its user.
func kubeconfigText(cluster, user string) string {
	return `apiVersion: v1
kind: Config
current-context: here
contexts:
- name: here
  context: {cluster: c, user: u}
- name: elsewhere
  context: {cluster: insecure, user: u}
clusters:
- name: c
  cluster: {` + cluster + `}
- name: insecure
  cluster: {server: "http://example.com"}
users:
- name: u
  user: {` + user + `}
`
}

func TestParseKubeconfig(t *testing.T) {
	const server, token = `server: "https://example.com:6443"`, `token: ` + hidden
	all := KubeconfigOptions{AllowExec: true, AllowInsecureTLS: true}
	cases := []struct {
		name, reason, text string
		options            KubeconfigOptions
		want               string // "" means that it is taken
		kind               failure.Kind
	}{
		{name: "token", reason: "it is complete in itself", text: kubeconfigText(server, token)},
		{name: "proxy", reason: "the toolkit allows it", text: kubeconfigText(server+`, proxy-url: "http://proxy:3128"`, token)},
		{name: "socks proxy", reason: "the toolkit allows it", text: kubeconfigText(server+`, proxy-url: "socks5://u:p@proxy:1080"`, token)},
		{name: "proxy that does not parse", reason: "the library would quote it", text: kubeconfigText(server+`, proxy-url: "http://u:`+hidden+`%zz@proxy:3128"`, token),
			want: "clusters[c].proxy-url: it is no address of an http, https or socks5 proxy", kind: failure.Invalid},
		{name: "proxy without a host", reason: "there is nowhere to go", text: kubeconfigText(server+`, proxy-url: "http:`+hidden+`"`, token),
			want: "clusters[c].proxy-url", kind: failure.Invalid},
		{name: "proxy of no known kind", reason: "the library would quote it", text: kubeconfigText(server+`, proxy-url: "ftp://u:`+hidden+`@proxy"`, token),
			want: "clusters[c].proxy-url", kind: failure.Invalid},
		{name: "contradiction", reason: "what the library says may quote", text: kubeconfigText(server, `exec: {apiVersion: "`+hidden+`"}`), options: all,
			want: "its current context is not complete or contradicts itself", kind: failure.Invalid},
		{name: "impersonation", reason: "less than the credentials allow", text: kubeconfigText(server, token+", as: somebody")},
		{name: "no YAML", reason: "nothing of the text is shown", text: hidden + ": [", want: "cannot be read as a kubeconfig", kind: failure.Invalid},
		{name: "anchor", reason: "the parser would quote it", text: "clusters: *" + hidden, want: "cannot be read as a kubeconfig", kind: failure.Invalid},
		{name: "empty", reason: "there is no context", text: "", want: "current-context: it is not set", kind: failure.Invalid},
		{name: "no such context", reason: "it is a typing mistake", text: strings.Replace(kubeconfigText(server, token), "current-context: here", "current-context: there", 1),
			want: `there is no context "there"`, kind: failure.Invalid},
		{name: "no such cluster", reason: "it is a typing mistake", text: strings.Replace(kubeconfigText(server, token), "cluster: c,", "cluster: d,", 1),
			want: `there is no cluster "d"`, kind: failure.Invalid},
		{name: "no such user", reason: "it is a typing mistake", text: strings.Replace(kubeconfigText(server, token), "user: u}\n- name: elsewhere", "user: v}\n- name: elsewhere", 1),
			want: `there is no user "v"`, kind: failure.Invalid},
		{name: "no server", reason: "there is nowhere to go", text: kubeconfigText(`server: ""`, token), want: "clusters[c].server: it is empty", kind: failure.Invalid},
		{name: "bad server", reason: "there is nowhere to go", text: kubeconfigText(`server: "::"`, token), want: "clusters[c].server: it is no address", kind: failure.Invalid},
		{name: "credentials in the address", reason: "addresses are shown", text: kubeconfigText(`server: "https://u:`+hidden+`@example.com"`, token),
			want: "clusters[c].server: it holds credentials", kind: failure.Invalid},
		{name: "no TLS", reason: "everybody on the way could read along", text: kubeconfigText(`server: "http://example.com"`, token),
			want: "clusters[c].server: it is an address without TLS", kind: failure.Refused},
		{name: "no TLS, allowed", reason: "the administrator says so", text: kubeconfigText(`server: "http://example.com"`, token), options: all},
		{name: "TLS not checked", reason: "anybody could answer", text: kubeconfigText(server+", insecure-skip-tls-verify: true", token),
			want: "clusters[c].insecure-skip-tls-verify", kind: failure.Refused},
		{name: "TLS not checked, allowed", reason: "the administrator says so", text: kubeconfigText(server+", insecure-skip-tls-verify: true", token), options: all},
		{name: "file of a CA", reason: "it would tell whether there is such a file", text: kubeconfigText(server+", certificate-authority: /etc/passwd", token),
			options: all, want: "clusters[c].certificate-authority: it names a file", kind: failure.Refused},
		{name: "file of a certificate", reason: "the engine's own identity", text: kubeconfigText(server, "client-certificate: /var/run/tls.crt"),
			options: all, want: "users[u].client-certificate: it names a file", kind: failure.Refused},
		{name: "file of a key", reason: "the engine's own identity", text: kubeconfigText(server, "client-key: /var/run/tls.key"),
			options: all, want: "users[u].client-key: it names a file", kind: failure.Refused},
		{name: "file of a token", reason: "the engine's own token would be sent to whoever asks", text: kubeconfigText(server, "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token"),
			options: all, want: "users[u].tokenFile: it names a file", kind: failure.Refused},
		{name: "plug-in", reason: "there are none", text: kubeconfigText(server, "auth-provider: {name: oidc}"), options: all, want: "users[u].auth-provider", kind: failure.Refused},
		{name: "program", reason: "it would run with the engine's rights", text: kubeconfigText(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}"),
			want: "users[u].exec: it names a program to run", kind: failure.Refused},
		{name: "program, allowed", reason: "the administrator says so", options: all,
			text: kubeconfigText(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config, err := ParseKubeconfig([]byte(c.text), "Secret ns/remote, key value", c.options)
			if c.want == "" {
				if err != nil || config.Host == "" {
					t.Fatalf("refused: %v, and %s", err, c.reason)
				}
				return
			}
			if err == nil {
				t.Fatalf("taken, and %s", c.reason)
			}
			message := err.Error()
			if failure.KindOf(err) != c.kind || !strings.Contains(message, c.want) || !strings.Contains(message, "Secret ns/remote, key value") {
				t.Errorf("%s: %s, want %s: %s", failure.KindOf(err), message, c.kind, c.want)
			}
			if strings.Contains(message, hidden) || strings.Contains(message, "\n") {
				t.Errorf("the message shows a value, or is more than a line: %s", message)
			}
		})
	}
}
