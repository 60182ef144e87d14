"""The kernel: what every feature may lean on. It knows no feature by name."""
