"""Sweeps: many ways to compress one model, measured side by side. See ARCHITECTURE.md."""
