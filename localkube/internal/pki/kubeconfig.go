package pki

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// WriteKubeconfig writes a kubeconfig with mode 0600 and the certificates inside, so that
// the file works wherever it is copied to. context names its context, cluster and user;
// pair is the key pair of the user.
func (f Folder) WriteKubeconfig(path, context, server, pair string) error {
	authority, err := os.ReadFile(f.Cert(CA))
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	cert, err := os.ReadFile(f.Cert(pair))
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	key, err := os.ReadFile(f.Key(pair))
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[context] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: authority}
	config.AuthInfos[context] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[context] = &clientcmdapi.Context{Cluster: context, AuthInfo: context}
	config.CurrentContext = context
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	if err := writeFile(path, data); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
