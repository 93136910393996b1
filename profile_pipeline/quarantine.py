"""Refused rows: listed, exported for repair, and delivered again."""
