"""What Onebox is compared with: ceilings, a plain script, and other designs."""
