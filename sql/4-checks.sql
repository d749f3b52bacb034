-- Says what is missing, and fails.
SET NOCOUNT ON;
USE [$(DATABASE)];
DECLARE @customers int = (SELECT COUNT(*) FROM dbo.customers);
DECLARE @orders int = (SELECT COUNT(*) FROM dbo.orders);
IF @customers < 100 OR @orders < 200 RAISERROR('The tables are not filled: %d customers, %d orders.', 16, 1, @customers, @orders);
IF EXISTS (SELECT 1 FROM dbo.orders AS o WHERE NOT EXISTS (SELECT 1 FROM dbo.customers AS c WHERE c.id = o.customer))
    RAISERROR('An order has no customer.', 16, 1);
IF SUSER_ID(N'$(LOGIN)') IS NULL RAISERROR('The login does not exist.', 16, 1);
PRINT 'good: ' + CAST(@customers AS varchar(10)) + ' customers, ' + CAST(@orders AS varchar(10)) + ' orders';
GO
