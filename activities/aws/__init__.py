"""boto3 clients, AWS error codes, and the EC2 calls that several activities share."""
