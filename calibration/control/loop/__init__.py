"""The whole control loop as one run of its commands, from traffic to a promoted policy, signed by a person."""
