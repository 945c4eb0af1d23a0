package controller

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/auth"
	"github.com/fluxcd/pkg/auth/generic"
	vaultapi "github.com/hashicorp/vault/api"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// vaultConfigKey is the entry of the ConfigMap that lists the servers.
const vaultConfigKey = "config.yaml"

// vaultToken logs a service account in at a Vault or OpenBao server, if the server is
// one that the administrator trusts with its tokens.
func (d *Decryption) vaultToken(ctx context.Context, address string, options []auth.Option) (string, error) {
	login, err := d.vaultLogin(ctx, address)
	if err != nil {
		return "", err
	}
	issued, err := auth.GetAccessToken(ctx, generic.Provider{}, options...)
	if err != nil {
		return "", fmt.Errorf("ask for a token of the service account: %w", err)
	}
	token, ok := issued.(*generic.Token)
	if !ok {
		return "", fmt.Errorf("a token of an unexpected kind: %T", issued)
	}
	role, err := vaultRole(token.Token)
	if err != nil {
		return "", err
	}
	config := vaultapi.DefaultConfig()
	config.Address = address
	client, err := vaultapi.NewClient(config)
	if err != nil {
		return "", fmt.Errorf("reach %s: %w", address, err)
	}
	client.ClearToken() // the environment's is not this account's
	answer, err := client.Logical().WriteWithContext(ctx, login, map[string]any{"role": role, "jwt": token.Token})
	if err != nil {
		return "", fmt.Errorf("log in at %s as %s: %w", login, role, err)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return "", fmt.Errorf("log in at %s as %s: the answer holds no token", login, role)
	}
	return answer.Auth.ClientToken, nil
}

// vaultLogin returns the path at which accounts log in at a server. The list is also
// the one of servers that are told who they are.
func (d *Decryption) vaultLogin(ctx context.Context, address string) (string, error) {
	var list corev1.ConfigMap
	if err := d.client.Get(ctx, d.VaultConfig, &list); err != nil {
		return "", fmt.Errorf("read ConfigMap/%s (--sops-vault-configmap): %w", d.VaultConfig, err)
	}
	var config kustomizev1.VaultConfig
	if err := yaml.Unmarshal([]byte(list.Data[vaultConfigKey]), &config); err != nil {
		return "", fmt.Errorf("ConfigMap/%s: %s cannot be read: %w", d.VaultConfig, vaultConfigKey, err)
	}
	for _, i := range config.Instances {
		if i.Address == address && i.LoginPath != "" {
			return i.LoginPath, nil
		}
	}
	return "", fmt.Errorf("ConfigMap/%s lists no server with this address", d.VaultConfig)
}

// vaultRole is the role of the account that a token stands for.
func vaultRole(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("the token of the service account is none of Kubernetes")
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	who, ok := strings.CutPrefix(claims.Subject, "system:serviceaccount:")
	namespace, name, split := strings.Cut(who, ":")
	if err != nil || !ok || !split {
		return "", errors.New("the token of the service account names no account")
	}
	return namespace + "_" + name, nil
}
