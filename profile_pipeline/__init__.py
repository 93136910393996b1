"""Unified customer profiles: raw deliveries in, one explained profile per real person out."""
