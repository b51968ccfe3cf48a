"""Models of Hugging Face as voices: an adapter a family of architectures, weights by the loader of transformers."""
