"""Language models: loading, reading, generating. The only place that knows transformers."""
