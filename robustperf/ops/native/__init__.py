"""The operations in native C++ on the CPU (csrc/cpu)."""
